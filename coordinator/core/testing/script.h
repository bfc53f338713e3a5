// Runs one line of a core script and says what it led to. Scripts and their traces are in testdata/.
//
//   submit NAME [ranks=N] [priority=N] [request=ID] [suspend] [FIELD=VALUE ...]   FIELD as in SpecOf
//   submit NAME driver [...]                        a job that asks for trials; it takes a driver slot
//   submit NAME gpu [...]                           a job whose ranks take GPU slots
//   submit NAME [after=A,B] [finished=A,B] [model_of=A] [artifact=X]      dependencies, and A's artifact X as its model
//   batch [request=ID] [check] NAME[:NAME,...] ...  several jobs, each with those that it comes after
//   trials W NAME number=N count=N [max_parallel=N] [steps=N] [seed=N] [kind=driver] [steps_at=I,STEPS] [after=A]
//   cancel|suspend|resume NAME [request=ID]
//   register W slots=N [gpus=N] [drivers=N] [start=N] [fence=N] [epoch=N] [tasks=NAME/ATTEMPT/STATE,...]
//   disconnect|heartbeat W
//   report W NAME STATE [attempt=N] [restored=N]    all ranks of the worker's task
//   exit W NAME success [artifact=NAME] | code=N | signal=N [class=C] [rank=N] [attempt=N] [after=DURATION]
//   commit W NAME step=N [attempt=N]
//   progress W NAME step=N [attempt=N]              of rank 0
//   forget W                                        by an operator
//   health W slot=N ok|bad [why=TEXT]
//   time DURATION         both clocks, in ticks of 100 ms, with heartbeats of the connected workers that are not silent
//   silence W             no more heartbeats from `time`
//   wall DURATION         only the wall clock
//   restart               the core from what was committed; sessions are gone
//   show NAME | trials_of NAME | workers | list
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "coordinator/core/core.h"
#include "coordinator/core/testing/memory_records.h"

namespace trainyard::coordinator {

class Script {
 public:
  Script();
  // The trace of the line, one effect a line; empty if nothing happened.
  std::string Run(const std::string& line);

 private:
  struct Words;
  v1::JobSpec SpecOf(const Words& words) const;
  void Finish(Effects* effects, std::string* trace);
  void Advance(absl::Duration by, std::string* trace);
  v1::TaskReport ReportOf(const std::string& worker, const std::string& name, int attempt, v1::TaskState state);
  std::string UidOf(const std::string& name) const;
  std::string NameOf(const std::string& uid) const;
  std::string WorkerOf(uint64_t session) const;
  std::string Describe(const v1::CoordinatorMessage& message) const;
  std::string Show(const std::string& name) const;
  std::string ShowTrials(const std::string& name) const;
  void SubmitBatch(const Words& words, Effects* effects, std::string* trace, absl::Status* status);
  void RunTrials(const Words& words, uint64_t session, Effects* effects);
  std::string ShowWorkers() const;

  Timing timing_;
  MemoryRecords records_;
  std::unique_ptr<Core> core_;
  Now now_;
  std::map<std::string, uint64_t> sessions_;
  std::map<uint64_t, std::string> workers_;
  std::set<std::string> silent_;
  std::map<std::string, int64_t> starts_;
  uint64_t last_session_ = 0;
  uint64_t sequence_ = 0;
  int last_job_ = 0;
};

}  // namespace trainyard::coordinator
