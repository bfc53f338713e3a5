#include "worker/linear/make_linear_scheme.h"

#include "absl/strings/str_cat.h"
#include "base/overloaded.h"
#include "base/pattern.h"
#include "worker/linear/excluding_scheme.h"
#include "worker/linear/fp8_scheme.h"
#include "worker/linear/quartet2_scheme.h"
#include "worker/linear/quartet_scheme.h"
#include "worker/linear/quest_scheme.h"

namespace trainyard::linear {
namespace {

using Made = std::unique_ptr<LinearScheme>;

Made Make(const spec::LinearOptions& options) {
  return std::visit(Overloaded{
                        // a scheme without a line here does not compile
                        [](const spec::LinearFp32&) -> Made { return MakeFp32Scheme(); },
                        [](const spec::LinearBf16&) -> Made { return MakeBf16Scheme(); },
                        [](const spec::LinearQuest& quest) -> Made { return MakeQuestScheme(quest); },
                        [](const spec::LinearFp8& o) -> Made { return MakeFp8Scheme(o); },
                        [](const spec::LinearQuartet& o) -> Made { return MakeQuartetScheme(o); },
                        [](const spec::LinearQuartet2& o) -> Made { return MakeQuartet2Scheme(o); },
                    },
                    options.scheme);
}

}  // namespace

std::unique_ptr<LinearScheme> MakeLinearScheme(const spec::LinearOptions& options) {
  Made scheme = Make(options);
  return options.exclude.empty() ? std::move(scheme) : MakeExcludingScheme(std::move(scheme), options.exclude);
}

std::unique_ptr<MaskProbe> MakeMaskProbe(const spec::LinearOptions& options) {
  if (const auto* const quest = std::get_if<spec::LinearQuest>(&options.scheme)) return MakeQuestMaskProbe(*quest);
  if (const auto* const quartet = std::get_if<spec::LinearQuartet>(&options.scheme)) {
    return MakeQuartetMaskProbe(*quartet);
  }
  return nullptr;
}

absl::Status CheckSite(const spec::LinearOptions& options, const LinearSite& site) {
  if (MatchesAny(options.exclude, site.name)) return absl::OkStatus();
  const spec::LinearMultiples multiples = MultiplesOf(options);
  const auto check = [&](const char* what, int64_t size, int64_t multiple) {
    if (size % multiple == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("training.linear.", SchemeName(options), ": ", what, " of ",
                                                   site.name, ": ", size, " is not a multiple of ", multiple));
  };
  absl::Status status = check("inputs", site.in, multiples.in);
  status.Update(check("outputs", site.out, multiples.out));
  status.Update(check("rows (micro_batch * sequence_length)", site.rows, multiples.rows));
  return status;
}

}  // namespace trainyard::linear
