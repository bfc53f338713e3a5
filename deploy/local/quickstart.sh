#!/usr/bin/env bash
# From a fresh Debian 12 machine to a language model trained on real English by two workers: installs packages,
# builds, starts a coordinator and two worker daemons, tokenizes about 15 MB of text, trains, and shows the result.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
dir=$root/.trainyard
bin=${TRAINYARD_BIN:-$root/bazel-bin}
client=$bin/client/trainyard
steps=${TRAINYARD_QUICKSTART_STEPS:-300}

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1/5 Packages"
third_party/install_packages.sh demo
echo "  all there"

say "2/5 Build (tens of minutes the first time on two cores, seconds after that)"
bazel build --config=opt --show_progress --show_progress_rate_limit=20 --ui_event_filters=-info,-debug \
  //client:trainyard //coordinator:trainyard-coordinator //worker/daemon:trainyard-worker \
  //worker/runner:trainyard-runner //worker/tools:trainyard-local

say "3/5 A coordinator and two workers"
deploy/local/cluster.sh start --workers 2 --slots 1 --dir "$dir"

say "4/5 Data: English text from Debian packages, byte-level BPE, token shards"
if [ -f "$dir/data/english/dataset.json" ]; then
  echo "  $dir/data/english is there already"
else
  deploy/local/corpus.sh "$dir/data/text"
  "$client" data tokenize --input "$dir/data/text" --output "$dir/data/english" --tokenizer bpe --vocab_size 4096
fi

say "5/5 Train: deploy/examples/quickstart.yaml, two ranks, $steps steps"
job=$("$client" submit -f deploy/examples/quickstart.yaml --set "training.steps=$steps" --quiet)
trap 'echo; echo "The job goes on: $client watch $job"; exit 130' INT
"$client" watch "$job"
trap - INT

say "Loss"
"$client" metrics "$job" --names loss --plot
say "Result"
"$client" get "$job"
model=$("$client" get "$job" -o json | python3 -c '
import json, sys
result = json.load(sys.stdin)["result"]
print(next(a["path"] for a in result["artifacts"] if a["name"] == "model"))')
echo
echo "Trained model: $model"
say "A sample of what it writes"
"$client" generate --model "$model" --prompt "In the beginning" --max_tokens 60 --temperature 0.8 --top_p 0.95 --seed 1
cat <<END

Open http://127.0.0.1:7072/ for jobs, curves, workers and logs in a browser.

Next:
  export PATH=$bin/client:\$PATH
  trainyard list                                  # what has run
  trainyard logs $job
  trainyard metrics $job --names loss,tokens_per_second --plot
  trainyard generate --model $model --prompt "And it came to pass"
  trainyard submit -f deploy/examples/pretrain.yaml --dry-run=server
  curl -s http://127.0.0.1:9464/metrics | grep ^trainyard_
  deploy/local/cluster.sh stop                    # ends the coordinator and the workers
END
