#include "kernels/core/simt/emulator.h"

#include <sys/mman.h>

#include <atomic>
#include <memory>
#include <vector>

#include "base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the callee's registers on this stack, stores its top in *from, goes on with the stack `to`. System V ABI,
// x86-64. ucontext would do, at two system calls a switch.
extern "C" void trainyard_simt_switch(void** from, void* to);
asm(R"(
.text
.p2align 4
.globl trainyard_simt_switch
.type trainyard_simt_switch, @function
trainyard_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size trainyard_simt_switch, .-trainyard_simt_switch
)");

namespace trainyard::simt {
namespace {

constexpr size_t kStackBytes = 64 << 10;
constexpr int kMaxThreads = 1024;

enum class State { kNew, kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct Fiber {
  State state = State::kNew;
  void* stack_top = nullptr;  // saved stack pointer while another fiber runs
  char* stack = nullptr;
  Place place;
  int warp = 0, lane = 0;
  // The warp operation it waits in: what it brings, whose it wants (or kBallot), what it got.
  uint32_t mask = 0;
  uint64_t deposit = 0;
  int wanted = 0;
  uint64_t result = 0;
};

constexpr int kBallot = -2;

// The machine of one host thread.
class Machine {
 public:
  ~Machine() {
    for (char* stack : free_stacks_) munmap(stack, kStackBytes);
  }

  void Run(Extent grid, Extent block, int64_t shared_bytes, Order order, absl::FunctionRef<void()> body) {
    TY_CHECK(running_ == nullptr && "a kernel cannot launch a kernel");
    const int64_t threads = int64_t{block.x} * block.y * block.z;
    TY_CHECK_GE(threads, 1);
    TY_CHECK_LE(threads, kMaxThreads);
    const int64_t blocks = int64_t{grid.x} * grid.y * grid.z;
    body_ = &body;
    shared_.resize(static_cast<size_t>(shared_bytes));
    fibers_.resize(static_cast<size_t>(threads));
    for (int64_t i = 0; i < blocks; ++i) {
      const int64_t b = order == Order::kForward ? i : blocks - 1 - i;
      const Index index = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                           static_cast<unsigned>(b / grid.x / grid.y)};
      RunBlock(index, block, grid, order);
    }
    body_ = nullptr;
  }

  Fiber& running() { return *running_; }
  void* shared() { return shared_.data(); }

  // Of the running fiber: lets the others go on.
  void Yield() {
    Fiber* self = running_;
    SwitchToScheduler(self, /*ends=*/false);
  }

  // The running fiber waits for the lanes of its mask; the last to come frees all.
  uint64_t WarpOperation(uint32_t mask, uint64_t deposit, int wanted) {
    Fiber& self = *running_;
    TY_CHECK((mask >> self.lane & 1) == 1 && "a lane is not in the mask of its warp operation");
    self.mask = mask;
    self.deposit = deposit;
    self.wanted = wanted;
    self.state = State::kAtWarpBarrier;
    if (!FreeWarp(self)) Yield();
    return self.result;
  }

  void BlockBarrier() {
    running_->state = State::kAtBlockBarrier;
    Yield();
  }

  Fiber* FindLane(const Fiber& of, int lane) {
    const size_t index = static_cast<size_t>(of.warp) * kWarpSize + static_cast<size_t>(lane);
    return lane >= 0 && lane < kWarpSize && index < fibers_.size() ? &fibers_[index] : nullptr;
  }

 private:
  void RunBlock(Index block_index, Extent block, Extent grid, Order order) {
    std::fill(shared_.begin(), shared_.end(), static_cast<char>(0xFF));
    const size_t count = fibers_.size();
    for (size_t t = 0; t < count; ++t) {
      Fiber& fiber = fibers_[t];
      fiber = Fiber();
      const unsigned linear = static_cast<unsigned>(t);
      fiber.place = {.thread = {linear % block.x, linear / block.x % block.y, linear / block.x / block.y},
                     .block = block_index,
                     .block_extent = block,
                     .grid_extent = grid};
      fiber.warp = static_cast<int>(t) / kWarpSize;
      fiber.lane = static_cast<int>(t) % kWarpSize;
    }
    size_t done = 0;
    while (done < count) {
      bool moved = false;
      for (size_t i = 0; i < count; ++i) {
        Fiber& fiber = fibers_[order == Order::kForward ? i : count - 1 - i];
        if (fiber.state != State::kNew && fiber.state != State::kReady) continue;
        moved = true;
        Resume(fiber);
        if (fiber.state == State::kDone) ++done;
      }
      if (!moved) FreeBlock();
    }
  }

  // No thread can go on: all that live must stand at the block's barrier.
  void FreeBlock() {
    for (Fiber& fiber : fibers_) {
      TY_CHECK((fiber.state == State::kAtBlockBarrier || fiber.state == State::kDone) &&
               "divergent kernel: some threads of a block wait in a warp operation that others do not reach");
    }
    for (Fiber& fiber : fibers_) {
      if (fiber.state == State::kAtBlockBarrier) fiber.state = State::kReady;
    }
  }

  bool FreeWarp(const Fiber& last) {
    for (int lane = 0; lane < kWarpSize; ++lane) {
      const Fiber* other = FindLane(last, lane);
      if (other == nullptr || (last.mask >> lane & 1) == 0) continue;
      TY_CHECK(other->state != State::kDone && "divergent kernel: a lane named in a warp operation has ended");
      if (other->state != State::kAtWarpBarrier) return false;
      TY_CHECK(other->mask == last.mask && "divergent kernel: lanes of a warp operation name other masks");
    }
    uint64_t ballot = 0;
    for (int lane = 0; lane < kWarpSize; ++lane) {
      const Fiber* other = FindLane(last, lane);
      if (other != nullptr && (last.mask >> lane & 1) != 0 && other->deposit != 0) ballot |= uint64_t{1} << lane;
    }
    for (int lane = 0; lane < kWarpSize; ++lane) {
      Fiber* other = FindLane(last, lane);
      if (other == nullptr || (last.mask >> lane & 1) == 0) continue;
      const Fiber* source = FindLane(last, other->wanted);
      other->result = other->wanted == kBallot ? ballot : source == nullptr ? other->deposit : source->deposit;
      other->state = State::kReady;
    }
    return true;
  }

  void Resume(Fiber& fiber) {
    if (fiber.state == State::kNew) Start(fiber);
    fiber.state = State::kReady;
    running_ = &fiber;
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, fiber.stack, kStackBytes);
#endif
    trainyard_simt_switch(&scheduler_top_, fiber.stack_top);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
    running_ = nullptr;
    if (fiber.state == State::kDone) {
      free_stacks_.push_back(fiber.stack);
      fiber.stack = nullptr;
    }
  }

  void Start(Fiber& fiber) {
    if (free_stacks_.empty()) {
      void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      TY_CHECK(stack != MAP_FAILED);
      free_stacks_.push_back(static_cast<char*>(stack));
    }
    fiber.stack = free_stacks_.back();
    free_stacks_.pop_back();
    // What trainyard_simt_switch pops: six registers and the return address; then the stack is as after a call, 8 bytes
    // off a multiple of 16.
    void** top = reinterpret_cast<void**>(fiber.stack + kStackBytes) - 1;
    *--top = reinterpret_cast<void*>(&Machine::Main);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    fiber.stack_top = top;
  }

  static void Main();

  void SwitchToScheduler(Fiber* self, bool ends) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(ends ? nullptr : &fake_stack, scheduler_stack_, scheduler_stack_bytes_);
#else
    (void)ends;
#endif
    trainyard_simt_switch(&self->stack_top, scheduler_top_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
  }

  void RunBody() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
    (*body_)();
    running_->state = State::kDone;
    SwitchToScheduler(running_, /*ends=*/true);
  }

  const absl::FunctionRef<void()>* body_ = nullptr;
  std::vector<char> shared_;
  std::vector<Fiber> fibers_;
  std::vector<char*> free_stacks_;
  Fiber* running_ = nullptr;
  void* scheduler_top_ = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
#endif
};

Machine& TheMachine() {
  static thread_local std::unique_ptr<Machine> machine = std::make_unique<Machine>();
  return *machine;
}

void Machine::Main() {
  TheMachine().RunBody();
}

std::atomic<Order> g_order{Order::kForward};

}  // namespace

const Place& CurrentPlace() {
  return TheMachine().running().place;
}

void SetOrder(Order order) {
  g_order = order;
}

void Run(Extent grid, Extent block, int64_t shared_bytes, absl::FunctionRef<void()> body) {
  TheMachine().Run(grid, block, shared_bytes, g_order, body);
}

void* DynamicShared() {
  return TheMachine().shared();
}

void SyncThreads() {
  TheMachine().BlockBarrier();
}

void SyncWarp(uint32_t mask) {
  TheMachine().WarpOperation(mask, 0, -1);
}

namespace internal {

uint64_t Exchange(uint32_t mask, uint64_t value, int lane) {
  return TheMachine().WarpOperation(mask, value, lane < 0 ? -1 : lane);
}

int CurrentLane() {
  return TheMachine().running().lane;
}

}  // namespace internal

uint32_t Ballot(uint32_t mask, bool predicate) {
  return static_cast<uint32_t>(TheMachine().WarpOperation(mask, predicate ? 1 : 0, kBallot));
}

}  // namespace trainyard::simt
