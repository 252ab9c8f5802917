//! From the text of a file to its pools.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::ServerName;
use weir_datastore::engine::{CustomFamily, Engine};
use weir_datastore::{EndpointAddress, EndpointSpec, MetricsSource, PoolId, PoolSpec, RequiredOptions, Scheme};

use super::families;
use super::names::{check_label, check_label_key, check_label_value, check_subdomain};
use super::node;
use super::problem::{PoolsFileError, Problem};
use super::reading::{Fields, Reading, Value};
use crate::access::{Access, Restrict, WantedPool, page_path};
use crate::connection::file_errors;

const API_VERSION: &str = "weir/v1";
/// Endpoints of one file, over all pools.
const MOST_ENDPOINTS: usize = 10_000;

/// The pools that `content` describes, the file being at `path`.
pub(super) fn parse(path: &Path, content: &[u8]) -> Result<Vec<WantedPool>, PoolsFileError> {
    let invalid = |problems| PoolsFileError::Invalid { path: path.to_owned(), problems };
    let source = std::str::from_utf8(content).map_err(|error| invalid(vec![not_utf8(content, error.valid_up_to())]))?;
    let tree = node::parse(source).map_err(|problem| invalid(vec![*problem]))?;
    let mut reader = PoolsReader { reading: Reading::new(source), folder: path.parent().unwrap_or(Path::new("")), endpoints: 0 };
    let pools = reader.document(&Value::root(&tree));
    let problems = reader.reading.sorted();
    if problems.is_empty() { Ok(pools) } else { Err(invalid(problems)) }
}

fn not_utf8(content: &[u8], at: usize) -> Problem {
    let before = String::from_utf8_lossy(&content[..at]);
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
    let message = format!("byte 0x{:02x} is not UTF-8: save the file as UTF-8", content[at]);
    Problem { line, column, field: String::new(), message, outside: false }
}

pub(super) struct PoolsReader<'source> {
    pub(super) reading: Reading<'source>,
    /// Paths in the file start here.
    folder: &'source Path,
    /// Endpoints so far.
    endpoints: usize,
}

/// What a plain connection allows, and how to have TLS instead.
#[derive(Clone, Copy)]
pub(super) struct Plain {
    /// Whether a token may go over it.
    pub(super) token: bool,
    /// In words.
    pub(super) way_out: &'static str,
}

/// What a pool's `metrics` say.
#[derive(Default)]
struct Metrics<'tree> {
    path: Option<Arc<str>>,
    scheme: Scheme,
    families: Vec<CustomFamily>,
    families_at: Option<Value<'tree>>,
    access: Access,
}

/// What a pool's `engine` says.
#[derive(Clone, Copy, PartialEq)]
enum EngineChoice {
    Auto,
    Named(Engine),
    /// Something else: told already.
    Wrong,
}

impl PoolsReader<'_> {
    fn document(&mut self, root: &Value<'_>) -> Vec<WantedPool> {
        let expected = format!("`apiVersion: {API_VERSION}` and `pools:`");
        let Some(fields) = self.reading.fields(root, &expected, &["apiVersion", "pools"]) else { return Vec::new() };
        let hint = format!("write `apiVersion: {API_VERSION}`");
        if let Some(value) = self.reading.required(&fields, "apiVersion", &hint)
            && let Some(version) = self.reading.text(&value, API_VERSION)
            && version != API_VERSION
        {
            self.reading.refuse(&value, format!("`{version}` is not a version that this weir reads: write `{API_VERSION}`"));
        }
        let Some(list) = self.reading.required(&fields, "pools", "write `pools:` and below it `- name: …`") else {
            return Vec::new();
        };
        let Some(list) = self.reading.list(&list, "a list of pools, `[]` for none") else { return Vec::new() };
        let mut lines = HashMap::new();
        list.iter().filter_map(|value| self.pool(value, &mut lines)).collect()
    }

    fn pool(&mut self, value: &Value<'_>, lines: &mut HashMap<PoolId, u64>) -> Option<WantedPool> {
        let known = ["name", "namespace", "engine", "endpoints", "pickers", "metrics", "required"];
        let fields = self.reading.fields(value, "a pool, with `name` and `endpoints`", &known)?;
        let id = self.pool_id(&fields, lines);
        let engine_field = fields.get("engine");
        let engine = engine_field.as_ref().map_or(EngineChoice::Auto, |value| self.engine(value));
        let hint = "list the servers as host:port, `endpoints: []` for none";
        let endpoints = self.reading.required(&fields, "endpoints", hint);
        let endpoints = endpoints.map(|value| self.endpoint_list(&value)).unwrap_or_default();
        let pickers = fields.get("pickers").map(|value| self.pickers(&value)).unwrap_or_default();
        let metrics = fields.get("metrics").map(|value| self.metrics(&value)).unwrap_or_default();
        let required = fields.get("required").map(|value| self.required_replicas(&value)).unwrap_or_default();
        match (engine, &engine_field, &metrics.families_at) {
            (EngineChoice::Named(Engine::Custom), Some(value), None) => {
                let message = "a custom engine has the families that its pool names, and none are named: write them under `metrics: families:`";
                self.reading.refuse(value, message);
            }
            (EngineChoice::Auto, _, Some(value)) => {
                let message =
                    "whose place they take depends on the engine: set the pool's `engine`, `custom` for one that is not known";
                self.reading.refuse(value, message);
            }
            _ => {}
        }
        let engine = if let EngineChoice::Named(engine) = engine { Some(engine) } else { None };
        let path = metrics.path.unwrap_or_else(|| MetricsSource::default().path);
        let source = MetricsSource { scheme: metrics.scheme, path, engine, families: metrics.families.into() };
        // A pool without pickers holds nothing; one with a picker that cannot be read may.
        let names = (!pickers.is_empty()).then(|| pickers.iter().map(|picker| picker.name.clone()).collect());
        let spec = PoolSpec { metrics: source, endpoints, pickers: names, required, ..PoolSpec::empty(id?) };
        Some(WantedPool { pickers, access: metrics.access, ..spec.into() })
    }

    /// The options of `inference_pool_required_replicas`.
    fn required_replicas(&mut self, value: &Value<'_>) -> RequiredOptions {
        let mut options = RequiredOptions::default();
        let names = RequiredOptions::NAMES;
        let Some(fields) = self.reading.fields(value, &format!("options: {}", names.join(", ")), &names) else { return options };
        for name in names {
            let Some(value) = fields.get(name) else { continue };
            let Some(text) = self.reading.text(&value, "true or false, or a number") else { continue };
            if let Err(error) = options.set(name, &text) {
                self.reading.refuse(&value, error);
            }
        }
        options
    }

    fn pool_id(&mut self, fields: &Fields<'_>, lines: &mut HashMap<PoolId, u64>) -> Option<PoolId> {
        let namespace = match fields.get("namespace") {
            Some(value) => self.checked_text(&value, "a namespace", check_label)?,
            None => Cow::Borrowed("default"),
        };
        let value = self.reading.required(fields, "name", "give the pool a name")?;
        let name = self.checked_text(&value, "the pool's name", check_subdomain)?;
        let id = PoolId::new(&namespace, &name);
        match lines.get(&id) {
            Some(line) => {
                let message =
                    format!("pool `{name}` of namespace `{namespace}` is already on line {line}: put their endpoints together");
                self.reading.refuse(&value, message);
            }
            None => drop(lines.insert(id.clone(), value.line())),
        }
        Some(id)
    }

    fn engine(&mut self, value: &Value<'_>) -> EngineChoice {
        match self.reading.text(value, "auto or an engine's name").as_deref() {
            None => EngineChoice::Wrong,
            Some("auto") => EngineChoice::Auto,
            Some(name) => match name.parse::<Engine>() {
                Ok(engine) => EngineChoice::Named(engine),
                Err(error) => {
                    self.reading.refuse(value, error);
                    EngineChoice::Wrong
                }
            },
        }
    }

    /// A label that names the engine of a pod must name one that there is, or the pod would be read as another.
    fn labelled_engine(&mut self, key: &str, value: &Value<'_>, name: &str) {
        if !Engine::POD_LABELS.contains(&key) {
            return;
        }
        match name.parse::<Engine>() {
            Ok(Engine::Custom) => {
                self.reading
                    .refuse(value, "`custom` is the engine of a whole pool: remove the label, and set the pool's `engine: custom`");
            }
            Ok(_) => {}
            Err(error) => {
                let error = error.replace("one of auto, ", "the label names the pod's engine, one of ");
                self.reading.refuse(value, error.replace(", custom", ""));
            }
        }
    }

    fn endpoint_list(&mut self, value: &Value<'_>) -> Vec<EndpointSpec> {
        let list = self.reading.list(value, "a list of host:port, `[]` for none").unwrap_or_default();
        let allowed = MOST_ENDPOINTS.saturating_sub(self.endpoints);
        if let Some(first_too_many) = list.get(allowed) {
            let message = format!("more than {MOST_ENDPOINTS} endpoints: share them out among several weirs");
            self.reading.refuse(first_too_many, message);
        }
        self.endpoints += list.len().min(allowed);
        let mut lines = HashMap::new();
        let mut ranks: HashMap<Arc<str>, u16> = HashMap::new();
        let mut endpoints = Vec::new();
        for value in list.iter().take(allowed) {
            let Some(mut endpoint) = self.endpoint(value, &mut lines) else { continue };
            let rank = ranks.entry(endpoint.pod.clone()).or_default();
            endpoint.rank = *rank;
            *rank = rank.saturating_add(1);
            endpoints.push(endpoint);
        }
        endpoints
    }

    fn endpoint(&mut self, value: &Value<'_>, lines: &mut HashMap<EndpointAddress, u64>) -> Option<EndpointSpec> {
        if !value.is_map() {
            return Some(EndpointSpec::standalone(self.address(value, lines)?));
        }
        let fields = self.reading.fields(value, "host:port", &["address", "pod", "labels"])?;
        let pod = fields.get("pod").map(|value| self.checked_text(&value, "the pod's name", check_subdomain));
        let labels = fields.get("labels").map(|value| self.labels(&value)).unwrap_or_default();
        let address = self.reading.required(&fields, "address", "write `address: host:port`")?;
        let mut endpoint = EndpointSpec::standalone(self.address(&address, lines)?);
        if let Some(pod) = pod {
            endpoint.pod = (*pod?).into();
        }
        endpoint.labels = Arc::new(labels);
        Some(endpoint)
    }

    fn address(&mut self, value: &Value<'_>, lines: &mut HashMap<EndpointAddress, u64>) -> Option<EndpointAddress> {
        let text = self.reading.text(value, "host:port")?;
        let address: EndpointAddress = match text.parse() {
            Ok(address) => address,
            Err(error) => {
                let error: String = error;
                self.reading.refuse(value, error);
                return None;
            }
        };
        match lines.get(&address) {
            Some(line) => {
                let message = format!("`{address}` is already on line {line} of this pool: it would count twice, remove one");
                self.reading.refuse(value, message);
            }
            None => drop(lines.insert(address.clone(), value.line())),
        }
        Some(address)
    }

    fn labels(&mut self, value: &Value<'_>) -> BTreeMap<String, String> {
        let entries = self.reading.entries(value, "labels as `key: value`").unwrap_or_default();
        let mut labels = BTreeMap::new();
        for (key, value) in entries {
            if let Err(error) = check_label_key(key) {
                self.reading.refuse(&value, error);
            }
            if let Some(text) = self.checked_text(&value, "the label's value, \"\" for none", check_label_value) {
                self.labelled_engine(key, &value, &text);
                labels.insert(key.to_owned(), text.into_owned());
            }
        }
        labels
    }

    fn metrics<'tree>(&mut self, value: &Value<'tree>) -> Metrics<'tree> {
        let mut metrics = Metrics::default();
        if value.is_nothing() {
            self.reading.refuse(value, "is empty: leave it out, or write `path`, `scheme`");
            return metrics;
        }
        let known = ["path", "scheme", "families", "restrict", "caFile", "serverName", "insecureSkipVerify", "bearerTokenFile"];
        let Some(fields) = self.reading.fields(value, "`path`, `scheme`", &known) else { return metrics };
        metrics.path = fields.get("path").and_then(|value| self.path(&value));
        let scheme = fields.get("scheme").map(|value| self.scheme(&value));
        let http = matches!(scheme, None | Some(Some(Scheme::Http)));
        metrics.scheme = scheme.flatten().unwrap_or_default();
        metrics.access = self.access(&fields, http.then_some(Plain { token: false, way_out: "set `scheme: https`" }));
        metrics.access.restrict = fields.get("restrict").map(|value| self.restrict(&value)).unwrap_or_default();
        metrics.families_at = fields.get("families");
        metrics.families = metrics.families_at.as_ref().map(|value| families::read(&mut self.reading, value)).unwrap_or_default();
        metrics
    }

    fn path(&mut self, value: &Value<'_>) -> Option<Arc<str>> {
        let path = self.reading.text(value, "a path such as /metrics")?;
        page_path(&path).map_err(|error| self.reading.refuse(value, error)).ok()
    }

    fn scheme(&mut self, value: &Value<'_>) -> Option<Scheme> {
        match &*self.reading.text(value, "http or https")? {
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            other => {
                self.reading.refuse(value, format!("`{other}` is not a scheme: write http or https"));
                None
            }
        }
    }

    fn restrict(&mut self, value: &Value<'_>) -> Restrict {
        match self.reading.text(value, "auto or never").as_deref() {
            Some("never") => Restrict::Never,
            Some("auto") | None => Restrict::Auto,
            Some(other) => {
                let message =
                    format!("`{other}`: write auto (restricted pages where they are right) or never (whole pages always)");
                self.reading.refuse(value, message);
                Restrict::Auto
            }
        }
    }

    /// TLS and credentials, over a connection that may be `plain`.
    pub(super) fn access(&mut self, fields: &Fields<'_>, plain: Option<Plain>) -> Access {
        let mut access = Access::default();
        let ca_file = fields.get("caFile");
        let server_name = fields.get("serverName");
        let insecure = fields.get("insecureSkipVerify");
        let token_file = fields.get("bearerTokenFile");
        access.ca_file = ca_file.as_ref().and_then(|value| self.file(value, "a file of PEM certificates"));
        access.server_name = server_name.as_ref().and_then(|value| self.server_name(value));
        access.insecure_skip_verify = insecure.as_ref().and_then(|value| self.reading.boolean(value)).unwrap_or_default();
        access.bearer_token_file = token_file.as_ref().and_then(|value| self.file(value, "a file with a token"));
        let insecure_set = insecure.filter(|_| access.insecure_skip_verify);
        if let Some(Plain { token, way_out }) = plain {
            for value in [&ca_file, &server_name, &insecure_set].into_iter().flatten() {
                let message = format!("contradictory: there is no TLS with scheme http; {way_out} or remove this");
                self.reading.refuse(value, message);
            }
            if let Some(value) = token_file.as_ref().filter(|_| !token) {
                let message =
                    format!("contradictory: with scheme http the token would travel in the clear; {way_out} or remove this");
                self.reading.refuse(value, message);
            }
            if !token {
                return access;
            }
        }
        if insecure_set.is_some() {
            for value in [&ca_file, &server_name].into_iter().flatten() {
                let message = "contradictory: with `insecureSkipVerify: true` no certificate is checked; remove one of them";
                self.reading.refuse(value, message);
            }
        }
        for (field, error) in file_errors(&access) {
            let value = if field == "caFile" { &ca_file } else { &token_file };
            if let Some(value) = value {
                self.reading.refuse_outside(value, error);
            }
        }
        access
    }

    fn file(&mut self, value: &Value<'_>, expected: &str) -> Option<PathBuf> {
        let path = self.reading.text(value, expected)?;
        if path.is_empty() {
            self.reading.refuse(value, format!("is empty: name {expected}"));
            return None;
        }
        Some(self.folder.join(&*path))
    }

    fn server_name(&mut self, value: &Value<'_>) -> Option<String> {
        let name = self.reading.text(value, "the name in the servers' certificate")?;
        if ServerName::try_from(&*name).is_err() {
            self.reading.refuse(value, format!("`{name}` is neither a host name nor an IP address"));
            return None;
        }
        Some(name.into_owned())
    }

    fn checked_text<'tree>(
        &mut self,
        value: &Value<'tree>,
        expected: &str,
        check: fn(&str) -> Result<(), String>,
    ) -> Option<Cow<'tree, str>>
    where
        Self: 'tree,
    {
        let text = self.reading.text(value, expected)?;
        check(&text).map_err(|error| self.reading.refuse(value, error)).ok()?;
        Some(text)
    }
}
