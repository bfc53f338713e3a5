// std::visit(Overloaded{[](const A&) {...}, [](const B&) {...}}, variant): an alternative without a line does not
// compile.
#pragma once

namespace trainyard {

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

}  // namespace trainyard
