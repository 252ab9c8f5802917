//! Asking one endpoint: for the whole page or a restricted one, and where.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tracing::{debug, info};
use url::Url;
use weir_datastore::engine::{Engine, PageClock, PageMemory, PageReader};
use weir_datastore::latency::{LatencyPage, LatencyReader};
use weir_datastore::{EndpointKey, EndpointLoad, FRESH_AT_MOST, FailureKind};

use crate::access::Restrict;
use crate::connection::Connection;
use crate::failure::ScrapeFailure;
use crate::fetch::{Page, fetch, parse_url};
use crate::metrics::PageKind;
use crate::restrict::{Flaw, Names, Restriction, Sighting};
use crate::scrape::Shared;

/// What one turn works with.
pub(crate) struct Turn<'endpoint> {
    pub(crate) key: &'endpoint EndpointKey,
    pub(crate) reader: &'endpoint PageReader,
    pub(crate) connection: &'endpoint Connection,
    pub(crate) shared: &'endpoint Shared,
    /// Whether the histograms of latencies are to be read too: they make most of a page.
    pub(crate) latencies: bool,
}

/// What came of one turn.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) load: EndpointLoad,
    /// None where they were not wanted, or the page has none.
    pub(crate) latencies: Option<LatencyPage>,
    pub(crate) trial: Option<Trial>,
}

/// What is remembered of an endpoint from turn to turn.
pub(crate) struct Asking {
    place: Place,
    memory: PageMemory,
    restriction: Restriction,
    /// Where the restricted page is, once it was tried.
    narrow: Option<Narrow>,
}

struct Narrow {
    names: Arc<Names>,
    url: Url,
    with_latencies: WithLatencies,
}

/// How the histograms of latencies are asked for where restricted pages are right.
#[derive(Debug)]
enum WithLatencies {
    /// By their names beside the others.
    Restricted(Url),
    /// On the whole page: a restricted one has shown none, or its URL would be too long.
    Whole,
    /// The engine has none.
    Never,
}

/// A restricted page is to be tried against this whole one.
#[derive(Debug)]
pub(crate) struct Trial {
    whole: Sighting,
    page_url: Url,
    names: Arc<Names>,
}

impl Asking {
    pub(crate) fn new(key: &EndpointKey) -> Self {
        let (place, memory) = (Place::new(key, None), PageMemory::default());
        Self { place, memory, restriction: Restriction::default(), narrow: None }
    }

    /// Asks once, or twice where a restricted page is of no use. Whatever fails is the whole page.
    ///
    /// # Errors
    /// Where there is no page that can be read.
    pub(crate) async fn turn(&mut self, turn: &Turn<'_>) -> Result<Told, ScrapeFailure> {
        if self.place.port != turn.connection.port() {
            // Another page, of which nothing is known.
            self.place = Place::new(turn.key, turn.connection.port());
            (self.restriction, self.narrow) = (Restriction::default(), None);
        }
        let automatic = turn.connection.restrict() == Restrict::Auto;
        if automatic
            && self.restriction.asks_restricted(Instant::now())
            && let Some(told) = self.restricted(turn).await
        {
            return Ok(told);
        }
        let whole = self.whole(turn, automatic).await;
        if let Err(failure) = &whole {
            self.restriction.whole_page_failed(failure.kind);
        }
        whole
    }

    /// The load off a restricted page, if it shows everything that it must.
    async fn restricted(&mut self, turn: &Turn<'_>) -> Option<Told> {
        let narrow = self.narrow.as_mut()?;
        let (url, wide) = match &narrow.with_latencies {
            WithLatencies::Restricted(url) if turn.latencies => (url, true),
            WithLatencies::Whole if turn.latencies => return None,
            _ => (&narrow.url, false),
        };
        let asked_at = Instant::now();
        let mut latencies = None;
        let (seen, load) = match turn.fetch(url, PageKind::Restricted).await {
            Ok(page) => {
                let seen = narrow.names.glance(&page.bytes, page.format);
                let load = turn.read(&page, asked_at, &mut self.memory).ok();
                latencies = load.as_ref().filter(|_| wide).and_then(|load| turn.latencies(&page, load.engine));
                turn.shared.bodies.end(page.bytes);
                (seen.map_err(|_| Flaw::Failed), load)
            }
            Err(_) => (Err(Flaw::Failed), None),
        };
        let page = seen.as_ref().map(|seen| (seen, load.as_ref().map(|load| load.counters)));
        match self.restriction.restricted_page(page.map_err(Clone::clone)) {
            Ok(()) => {
                if wide && latencies.as_ref().is_none_or(LatencyPage::is_empty) {
                    latencies = None;
                    narrow.with_latencies = WithLatencies::Whole;
                }
                Some(Told { load: load?, latencies, trial: None })
            }
            Err(flaw) => {
                let (pool, address, reason) = (&turn.key.pool, &turn.key.address, flaw.told(&narrow.names));
                match flaw {
                    // What follows tells what is wrong with the server.
                    Flaw::Failed => debug!(%pool, %address, reason, "asking for the whole page instead of a restricted one"),
                    _ => info!(%pool, %address, reason, "asking for the whole page instead of a restricted one"),
                }
                None
            }
        }
    }

    async fn whole(&mut self, turn: &Turn<'_>, automatic: bool) -> Result<Told, ScrapeFailure> {
        let url = self.place.url()?;
        let asked_at = Instant::now();
        let page = match turn.fetch(url, PageKind::Full).await {
            Ok(page) => page,
            Err(failure) => {
                // The server may have been replaced by one without the redirect.
                self.place.redirected = None;
                return Err(failure);
            }
        };
        let read = turn.read(&page, asked_at, &mut self.memory);
        let wanted = read.as_ref().ok().filter(|_| turn.latencies);
        let latencies = wanted.and_then(|load| turn.latencies(&page, load.engine));
        let mut trial = None;
        if automatic
            && let Ok(load) = &read
            && self.restriction.whole_page(load.counters, Instant::now())
        {
            let names = turn.shared.names.of(load.engine, &turn.key.metrics.families);
            let whole = names.sighting(&page.bytes, page.format);
            trial = whole.ok().map(|whole| Trial { whole, page_url: page.url.clone(), names });
        }
        turn.shared.bodies.end(page.bytes);
        if page.url != *url {
            self.place.redirected = Some(page.url);
        }
        Ok(Told { load: read?, latencies, trial })
    }

    /// Reads a restricted page and compares it with the whole one right before it.
    pub(crate) async fn try_restricted(&mut self, turn: &Turn<'_>, trial: Trial) {
        let Trial { whole, page_url, names } = trial;
        let url = names.url(&page_url);
        let restricted = match &url {
            None => Err(Flaw::UrlTooLong),
            Some(url) => match turn.fetch(url, PageKind::Trial).await {
                Ok(page) => {
                    let sighting = names.sighting(&page.bytes, page.format).map_err(|_| Flaw::Failed);
                    turn.shared.bodies.end(page.bytes);
                    sighting
                }
                Err(_) => Err(Flaw::Failed),
            },
        };
        let (pool, address, engine) = (&turn.key.pool, &turn.key.address, names.engine().name());
        match self.restriction.tried(&whole, restricted, Instant::now()) {
            Ok(()) => debug!(%pool, %address, engine, "restricted pages agree with the whole one and are used from now on"),
            Err(flaw) => debug!(%pool, %address, engine, reason = flaw.told(&names), "whole pages are used"),
        }
        let with_latencies = match LatencyReader::of(names.engine()) {
            None => WithLatencies::Never,
            Some(reader) => names.url_with(&page_url, reader.names()).map_or(WithLatencies::Whole, WithLatencies::Restricted),
        };
        self.narrow = url.map(|url| Narrow { names, url, with_latencies });
    }
}

impl<'endpoint> Turn<'endpoint> {
    async fn fetch(&self, url: &Url, kind: PageKind) -> Result<Page<'endpoint>, ScrapeFailure> {
        self.shared.metrics.asked(kind);
        let page = fetch(self.connection, url, &self.shared.bodies, self.shared.timeout).await?;
        self.shared.metrics.body_bytes.inc_by(page.bytes.len() as u64);
        Ok(page)
    }

    /// The histograms on `page`; none where the engine has none.
    fn latencies(&self, page: &Page<'_>, engine: Engine) -> Option<LatencyPage> {
        // What cannot be read for its histograms was read for its load: it has too many of them.
        let refused = |_| LatencyPage { refused: 1, ..LatencyPage::default() };
        let found = LatencyReader::of(engine)?.read(&page.bytes, page.format).unwrap_or_else(refused);
        self.shared.metrics.histogram_pages.inc();
        self.shared.metrics.refused_histograms.inc_by(u64::from(found.refused));
        Some(found)
    }

    fn read(&self, page: &Page<'_>, asked_at: Instant, memory: &mut PageMemory) -> Result<EndpointLoad, ScrapeFailure> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = PageClock {
            asked_at,
            wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
            stale_after_ms: FRESH_AT_MOST.as_millis() as i64,
        };
        let read = self.reader.read(&page.bytes, page.format, clock, memory);
        read.map_err(|error| ScrapeFailure::of_page(&page.url, &error))
    }
}

/// Where the whole page is.
struct Place {
    /// The port, where it is not the endpoint's.
    port: Option<u16>,
    configured: Result<Url, ScrapeFailure>,
    /// Where the server sent us last; asked directly from then on.
    redirected: Option<Url>,
}

impl Place {
    fn new(key: &EndpointKey, port: Option<u16>) -> Self {
        let text = format!("{}://{}{}", key.metrics.scheme.as_str(), key.address, key.metrics.path);
        let configured = parse_url(&text).and_then(|(mut url, _)| match url.set_port(port.or(url.port())) {
            Ok(()) => Ok(url),
            Err(()) => Err(ScrapeFailure::new(FailureKind::Connect, &text, "this URL takes no port: is the address right?")),
        });
        Self { port, configured, redirected: None }
    }

    fn url(&self) -> Result<&Url, ScrapeFailure> {
        match (&self.redirected, &self.configured) {
            (Some(url), _) | (None, Ok(url)) => Ok(url),
            (None, Err(failure)) => Err(failure.clone()),
        }
    }
}
