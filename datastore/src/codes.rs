//! One name for each cause of trouble that a server of weir's can meet, the same in its log (field `code`), on its metrics page (label
//! `code`) and in `weir doctor`, whose table says of each what mends it (docs/troubleshooting.md).
//!
//! A code is for what an operator has to mend. What only `weir doctor` can see, from outside, has its name in its table alone.

/// Declares the codes, and the list of them.
macro_rules! codes {
    ($($(#[doc = $about:literal])+ $name:ident = $code:literal;)*) => {
        $($(#[doc = $about])+ pub const $name: &str = $code;)*

        /// All of them.
        pub const ALL: &[(&str, &str)] = &[$((stringify!($name), $code)),*];
    };
}

codes! {
    /// A server's port refuses connections.
    SERVER_PORT_REFUSED = "server-port-refused";
    /// A metrics page cannot be had: no connection, no answer in time, half a page, a status that says nothing else.
    PAGE_UNREACHABLE = "page-unreachable";
    /// A metrics page wants credentials: 401.
    PAGE_UNAUTHORIZED = "page-unauthorized";
    /// A metrics page refuses whoever asks: 403.
    PAGE_FORBIDDEN = "page-forbidden";
    /// There is no metrics page: 404, 405, 501.
    PAGE_ABSENT = "page-absent";
    /// A metrics page says nothing.
    PAGE_EMPTY = "page-empty";
    /// A page is of no engine that is known, or not the one that was named.
    PAGE_ENGINE_UNKNOWN = "page-engine-unknown";
    /// A page of an engine lacks a load signal.
    PAGE_FAMILY_MISSING = "page-family-missing";
    /// A page's samples carry times of long ago.
    PAGE_STALE = "page-stale";
    /// The CRD of the pools is not installed.
    CRD_MISSING = "crd-missing";
    /// Kubernetes objects may not be read.
    PICKER_FORBIDDEN = "picker-forbidden";
    /// The pool that a picker is for does not exist.
    PICKER_POOL_NAME = "picker-pool-name";
    /// A picker's configuration cannot be read.
    PICKER_CONFIG_UNREADABLE = "picker-config-unreadable";
    /// A scorer of a picker's configuration cannot matter.
    PICKER_WEIGHTS = "picker-weights";
    /// The Service of a pool's picker does not exist.
    PICKER_SERVICE_MISSING = "picker-service-missing";
    /// The Service of a pool's picker selects no pods.
    PICKER_NO_PODS = "picker-no-pods";
    /// No pod of a pool's picker is Ready.
    PICKER_NOT_READY = "picker-not-ready";
    /// An APIService of the metrics APIs is not there, or cannot be kept.
    APISERVICE_UNAVAILABLE = "apiservice-unavailable";
    /// An APIService of the metrics APIs belongs to another adapter.
    APISERVICE_FOREIGN = "apiservice-foreign";
    /// A metric was asked for and has no value now.
    HPA_METRIC_FAILED = "hpa-metric-failed";
    /// A metric was asked for that does not exist.
    HPA_METRIC_MISSPELT = "hpa-metric-misspelt";
    /// A metric was asked for of a pool that does not exist.
    HPA_SELECTS_NO_POOL = "hpa-selects-no-pool";
    /// A target is at zero by another's hand, and stays there.
    HPA_OFF_AT_ZERO = "hpa-off-at-zero";
    /// Two autoscalers, or one and KEDA, scale one target.
    TWO_SCALERS = "two-scalers";
}
