#include "client/certs.h"

#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/certificates.h"

namespace trainyard::client {
namespace {

struct InitFlags {
  std::string directory;
  std::vector<std::string> hosts;
  int days = 365;
};

constexpr int kAuthorityDays = 3650;

struct File {
  std::string path, content;
  bool is_secret = false;
};

// As Kubernetes names the entries of a TLS secret, so that a folder becomes one as it is.
void AddPart(const std::string& directory, const IssuedCertificate& issued, const std::string& authority,
             std::vector<File>* files) {
  files->push_back({JoinPath(directory, "tls.crt"), issued.certificate, false});
  files->push_back({JoinPath(directory, "tls.key"), issued.key, true});
  files->push_back({JoinPath(directory, "ca.crt"), authority, false});
}

absl::Status Init(const InitFlags& flags) {
  std::vector<std::string> hosts = {"localhost", "127.0.0.1", "::1", "trainyard-coordinator"};
  hosts.insert(hosts.end(), flags.hosts.begin(), flags.hosts.end());
  TY_ASSIGN_OR_RETURN(const CertificateAuthority authority, MakeAuthority("Trainyard CA", kAuthorityDays));
  std::vector<File> files = {{JoinPath(flags.directory, "ca.crt"), authority.certificate, false},
                             {JoinPath(flags.directory, "ca.key"), authority.key, true}};
  for (const char* part : {"coordinator", "worker", "client"}) {
    CertificateRequest request{.common_name = absl::StrCat("trainyard-", part), .hosts = {}, .days = flags.days};
    if (std::string(part) == "coordinator") request.hosts = hosts;
    TY_ASSIGN_OR_RETURN(const IssuedCertificate issued, Issue(authority, request));
    AddPart(JoinPath(flags.directory, part), issued, authority.certificate, &files);
  }
  for (const File& file : files) {
    if (FileExists(file.path)) {
      return absl::AlreadyExistsError(
          absl::StrCat(file.path, " is there already, and certificates are not replaced; give another --dir"));
    }
  }
  for (const char* part : {"coordinator", "worker", "client"}) {
    TY_RETURN_IF_ERROR(MakeDirs(JoinPath(flags.directory, part)));
  }
  const mode_t before = umask(077);  // keys are nobody else's, at no moment
  absl::Status status;
  for (const File& file : files) {
    if (status.ok()) status = WriteFileAtomic(file.path, file.content);
    if (status.ok() && chmod(file.path.c_str(), file.is_secret ? 0600 : 0644) != 0) {
      status = absl::InternalError(absl::StrCat(file.path, ": cannot set its mode"));
    }
  }
  umask(before);
  return status;
}

int RunInit(const InitFlags& flags, Context& context) {
  if (const absl::Status status = Init(flags); !status.ok()) {
    context.err() << "trainyard certs init: " << status.message() << "\n";
    return status.code() == absl::StatusCode::kInvalidArgument ? kExitUsage : kExitFailedCall;
  }
  const std::string& dir = flags.directory;
  context.out() << "Made a CA and certificates for " << flags.days << " days in " << dir << ". Keep " << dir
                << "/ca.key off the cluster: whoever has it can join.\nNext, with the flags of each part:\n";
  for (const auto& [program, part] : {std::pair<const char*, const char*>{"trainyard-coordinator", "coordinator"},
                                      {"trainyard-worker", "worker"},
                                      {"trainyard", "client"}}) {
    const std::string folder = JoinPath(dir, part);
    context.out() << "  " << program << " --tls_cert=" << folder << "/tls.crt --tls_key=" << folder
                  << "/tls.key --tls_ca=" << folder << "/ca.crt ...\n";
  }
  context.out() << "For a browser that opens the web view: openssl pkcs12 -export -name trainyard -inkey " << dir
                << "/client/tls.key -in " << dir << "/client/tls.crt -certfile " << dir
                << "/ca.crt -out trainyard.p12, and import that file.\n";
  context.out() << "On Kubernetes: kubectl create secret generic trainyard-coordinator-tls --from-file=" << dir
                << "/coordinator, and likewise trainyard-worker-tls.\n";
  return kExitOk;
}

}  // namespace

void AddCertsCommand(CLI::App& app,
                     const std::function<void(std::function<int(Context&)> run, bool needs_server)>& select) {
  CLI::App* certs = app.add_subcommand("certs", "Certificates for mutual TLS between the parts of a cluster");
  certs->fallthrough();
  certs->require_subcommand(1);
  auto init = std::make_shared<InitFlags>();
  CLI::App* command = certs->add_subcommand("init", "Make a CA and certificates for coordinator, worker and client");
  command->fallthrough();
  command->add_option("--dir", init->directory, "Folder to make them in; what is there is never replaced")->required();
  command->add_option("--host", init->hosts, "A name or address of the coordinator, beside localhost; may be repeated")
      ->allow_extra_args(false);
  command->add_option("--days", init->days, "Until they expire; the CA lives ten years")
      ->check(CLI::Range(1, kAuthorityDays))
      ->capture_default_str();
  command->callback(
      [init, select] { select([init](Context& context) { return RunInit(*init, context); }, /*needs_server=*/false); });
}

}  // namespace trainyard::client
