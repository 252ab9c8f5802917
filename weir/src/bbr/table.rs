//! The flags: those of the Go body-based router, and weir's own.

use crate::go_flags::Effect::{Heeded, Instead, Needless, Own};
use crate::go_flags::Kind::{Bool, Duration, Number, Port, Text, Texts};
use crate::go_flags::{Flag, Program, flag};

/// The router's command line.
pub(super) const ROUTER: Program = Program {
    name: "bbr",
    head: "Headers from bodies, for a gateway to route on, with the command line of the Go body-based router\n\
           (docs/body-based-routing.md)\n\n\
           Usage: weir bbr [FLAGS], or under the name bbr\n\n\
           -flag is --flag.\n",
    table: TABLE,
    other_spellings: &[],
};

/// Every flag, in the order of the help.
#[rustfmt::skip]
pub(super) const TABLE: &[Flag] = &[
    flag("grpc-port", Port, "9004", Heeded, "Port of ext_proc"),
    flag("grpc-health-port", Port, "9005", Heeded, "Port of gRPC health, plain text"),
    flag("metrics-port", Port, "9090", Heeded, "Port of the metrics page"),
    flag("streaming", Bool, "false", Heeded, "The mode of gateways that do not tell theirs: full duplex, else buffered"),
    flag("plugin", Texts, "", Heeded, "TYPE:NAME or TYPE:NAME:JSON, given again for each; model and base model without any"),
    flag("secure-serving", Bool, "true", Heeded, "TLS on ext_proc"),
    flag("metrics-endpoint-auth", Bool, "true", Heeded, "In a cluster: the page is for whom the API server lets get it"),
    flag("v", Number, "2", Heeded, "How much is logged: 4 debug, 5 trace"),
    flag("zap-log-level", Text, "", Heeded, "The same as debug, info, error or a number; goes before -v"),
    flag("zap-encoder", Text, "console", Heeded, "json or console"),
    flag("kubeconfig", Text, "", Heeded, "A kubeconfig, for use outside of a cluster"),
    flag("zap-devel", Bool, "true", Needless, ""),
    flag("zap-stacktrace-level", Text, "", Needless, ""),
    flag("zap-time-encoding", Text, "", Needless, ""),
    flag("enable-pprof", Bool, "true", Instead("false", "there are no /debug/pprof pages"), ""),
    flag("tracing", Bool, "true", Instead("false", "no spans are sent"), ""),
    flag("rules", Text, "", Own, "A file of names, mappings and the classifier (docs/body-based-routing.md), read again when it changes"),
    flag("cert-path", Text, "", Own, "Directory of tls.crt and tls.key; without it weir makes a certificate"),
    flag("metrics-cert-dir", Text, "", Own, "TLS on the metrics port, with tls.crt and tls.key of this directory"),
    flag("metrics-client-ca-file", Text, "", Own, "Callers of the metrics port bring a certificate of this authority"),
    flag("drain-timeout", Duration, "15s in a cluster, else 0s", Own, "How long to go on accepting after SIGTERM"),
    flag("namespace", Text, "$NAMESPACE, else all", Own, "The namespace whose ConfigMaps with mappings count"),
    flag("context", Text, "", Own, "Which context of the kubeconfig"),
    flag("bind-address", Text, ":: or 0.0.0.0", Own, "The address of all ports; a port 0 takes a free one"),
];
