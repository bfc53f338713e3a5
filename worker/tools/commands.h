// The commands of trainyard-local beside `data`. Parsing a line with one of them runs it; results go to stdout,
// progress and errors to stderr, and *exit_code becomes that of CP-73. exit_code is borrowed until the parse is over.
#pragma once

namespace CLI {
class App;
}

namespace trainyard::tools {

// `plan JOB.yaml`: memory by purpose, operations and bytes on the wire of a job, without running it.
void AddPlanCommand(CLI::App& app, int* exit_code);
// `generate --model DIR --prompt TEXT`: text from a model or a checkpoint, as it is made.
void AddGenerateCommand(CLI::App& app, int* exit_code);
// `eval --model DIR --data DIR`: loss and perplexity on the validation split.
void AddEvalCommand(CLI::App& app, int* exit_code);
// `prune MODEL --out DIR`: one-shot pruning by magnitude, Wanda or SparseGPT.
void AddPruneCommand(CLI::App& app, int* exit_code);
// `run JOB.yaml`: coordinator, workers and job as one process tree.
void AddRunCommand(CLI::App& app, int* exit_code);

}  // namespace trainyard::tools
