#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/commands.h"

namespace trainyard::client {
namespace {

std::string Names(const std::vector<CommandWords>& commands) {
  return absl::StrJoin(commands, " ", [](std::string* out, const CommandWords& c) { out->append(c.name); });
}

// Names of jobs come from the service itself.
constexpr char kBash[] = R"sh(# trainyard completion for bash: source <(trainyard completion bash)
_trainyard() {
  local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]}
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "@NAMES@" -- "$word"))
    return
  fi
  case $word in
    -*)
      case $command in
@CASES@      esac
      ;;
    *)
      case $command in
        get|watch|logs|metrics|cancel|suspend|resume|wait|explain)
          COMPREPLY=($(compgen -W "$(trainyard list -o name 2>/dev/null)" -- "$word")) ;;
        completion) COMPREPLY=($(compgen -W "bash zsh fish" -- "$word")) ;;
        *) COMPREPLY=($(compgen -f -- "$word")) ;;
      esac
      ;;
  esac
}
complete -o filenames -F _trainyard trainyard
)sh";

std::string Bash(const std::vector<CommandWords>& commands) {
  std::string cases;
  for (const CommandWords& command : commands) {
    absl::StrAppend(&cases, "        ", command.name, ") COMPREPLY=($(compgen -W \"",
                    absl::StrJoin(command.options, " "), "\" -- \"$word\")) ;;\n");
  }
  return absl::StrReplaceAll(kBash, {{"@NAMES@", Names(commands)}, {"@CASES@", cases}});
}

// zsh reads bash's completions.
std::string Zsh(const std::vector<CommandWords>& commands) {
  return absl::StrCat("# trainyard completion for zsh: source <(trainyard completion zsh)\n",
                      "autoload -U +X bashcompinit && bashcompinit\n", Bash(commands));
}

std::string Fish(const std::vector<CommandWords>& commands) {
  std::string out = "# trainyard completion for fish: trainyard completion fish | source\ncomplete -c trainyard -f\n";
  for (const CommandWords& command : commands) {
    absl::StrAppend(&out, "complete -c trainyard -n __fish_use_subcommand -a ", command.name, " -d '",
                    absl::StrReplaceAll(command.description, {{"'", "\\'"}}), "'\n");
    for (const std::string& option : command.options) {
      if (option.rfind("--", 0) != 0) continue;
      absl::StrAppend(&out, "complete -c trainyard -n '__fish_seen_subcommand_from ", command.name, "' -l ",
                      option.substr(2), "\n");
    }
  }
  absl::StrAppend(&out, "complete -c trainyard -n '__fish_seen_subcommand_from submit' -F\n",
                  "complete -c trainyard -n '__fish_seen_subcommand_from get watch logs metrics cancel suspend resume "
                  "wait explain' -a '(trainyard list -o name 2>/dev/null)'\n");
  return out;
}

}  // namespace

std::string CompletionScript(const std::string& shell, const std::vector<CommandWords>& commands) {
  if (shell == "zsh") return Zsh(commands);
  if (shell == "fish") return Fish(commands);
  return Bash(commands);
}

}  // namespace trainyard::client
