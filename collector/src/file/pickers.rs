//! The pickers of a pool.

use std::collections::HashMap;
use std::sync::Arc;

use weir_datastore::Scheme;

use super::pools::{Plain, PoolsReader};
use super::reading::Value;
use crate::access::{Access, WantedPicker};
use crate::fetch::parse_url;

/// Replicas of one pool's picker.
const MOST_PICKERS: usize = 64;
/// The longest name, in bytes.
const LONGEST_NAME: usize = 253;

/// Go pickers ask for a token and serve their page over plain HTTP: it is that, or no page.
const PLAIN: Plain = Plain { token: true, way_out: "write an https URL" };

/// The lines of names and URLs so far.
#[derive(Default)]
struct Seen {
    names: HashMap<Arc<str>, u64>,
    urls: HashMap<Arc<str>, u64>,
}

impl PoolsReader<'_> {
    pub(super) fn pickers(&mut self, value: &Value<'_>) -> Vec<WantedPicker> {
        let list = self.reading.list(value, "a list of URLs, `[]` for none").unwrap_or_default();
        if let Some(first_too_many) = list.get(MOST_PICKERS) {
            self.reading.refuse(first_too_many, format!("more than {MOST_PICKERS} replicas of one picker"));
        }
        let mut seen = Seen::default();
        list.iter().take(MOST_PICKERS).filter_map(|value| self.picker(value, &mut seen)).collect()
    }

    fn picker(&mut self, value: &Value<'_>, seen: &mut Seen) -> Option<WantedPicker> {
        if !value.is_map() {
            let (url, _, name) = self.picker_url(value, seen)?;
            self.picker_name(value, &name, seen);
            return Some(WantedPicker { name, url, access: Access::default() });
        }
        let known = ["url", "name", "caFile", "serverName", "insecureSkipVerify", "bearerTokenFile"];
        let fields = self.reading.fields(value, "a URL", &known)?;
        let url = self.reading.required(&fields, "url", "write `url: http://host:port/metrics`");
        let url = url.and_then(|value| Some((value.clone(), self.picker_url(&value, seen)?)));
        let plain = url.as_ref().and_then(|(_, (_, scheme, _))| (*scheme == Scheme::Http).then_some(PLAIN));
        let access = self.access(&fields, plain);
        let given = fields.get("name").map(|value| (value.clone(), self.reading.text(&value, "the picker's name").map(Arc::from)));
        let (url_field, (url, _, from_url)) = url?;
        let (field, name) = match given {
            Some((field, name)) => (field, name?),
            None => (url_field, from_url),
        };
        self.picker_name(&field, &name, seen);
        Some(WantedPicker { name, url, access })
    }

    /// The URL of a picker's page, and the name that it gives the picker.
    fn picker_url(&mut self, value: &Value<'_>, seen: &mut Seen) -> Option<(Arc<str>, Scheme, Arc<str>)> {
        let text = self.reading.text(value, "a URL such as http://127.0.0.1:9090/metrics")?;
        let (mut url, scheme) = parse_url(&text).map_err(|failure| self.reading.refuse(value, failure.message)).ok()?;
        if url.fragment().is_some() {
            self.reading.refuse(value, format!("`{url}`: a page has no fragment: leave out `#` and what follows"));
            return None;
        }
        if url.path() == "/" && url.query().is_none() {
            url.set_path("/metrics");
        }
        let name = format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        let url: Arc<str> = url.as_str().into();
        match seen.urls.get(&url) {
            Some(line) => {
                let message =
                    format!("`{url}` is already on line {line} of this pool: what it holds would count twice, remove one");
                self.reading.refuse(value, message);
                None
            }
            None => {
                seen.urls.insert(url.clone(), value.line());
                Some((url, scheme, name.into()))
            }
        }
    }

    fn picker_name(&mut self, value: &Value<'_>, name: &Arc<str>, seen: &mut Seen) {
        if name.is_empty()
            || name.len() > LONGEST_NAME
            || name.chars().any(|character| character.is_whitespace() || character.is_control())
        {
            let shown: String = name.escape_debug().take(64).collect();
            self.reading.refuse(value, format!("`{shown}` is not a name: write 1 to {LONGEST_NAME} bytes without blanks"));
        }
        match seen.names.get(name) {
            Some(line) => {
                let message =
                    format!("a picker called `{name}` is already on line {line} of this pool: give one of them another `name`");
                self.reading.refuse(value, message);
            }
            None => drop(seen.names.insert(name.clone(), value.line())),
        }
    }
}
