//! A replica at run time: the model behind a lock, a task that steps it in real time, and the requests that wait for its tokens.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::http::HeaderValue;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::faults::{Hold, MetricsFault, apply_gauges};
use crate::fleet::{ServerConfig, StartError};
use crate::model::{Finished, Iteration, Model, ModelView, Request, RequestId, StepOutcome, SubmitError};
use crate::page::{Engine, HttpExchange, HttpStatistics};

/// Iterations kept for TensorRT-LLM's JSON until somebody reads them.
const ITERATIONS_LIMIT: usize = 1000;
/// A replica that falls behind its clock by more than this (a stopped process, an overloaded machine) gives the time up.
const LARGEST_LAG: Duration = Duration::from_millis(500);

/// What the HTTP handlers and the stepping task share.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(super) pod_header: HeaderValue,
    pub(super) model_name: String,
    pub(super) adapters: Vec<String>,
    pub(crate) engine: Engine,
    pub(super) max_model_len: u32,
    pub(super) block_size: u32,
    pub(super) max_body_bytes: usize,
    pub(super) pad_page_to: usize,
    /// Names answers of this replica apart from others'.
    pub(super) seed: u64,
    /// The start, since the Unix epoch.
    pub(super) started_at: Duration,
    /// The start on the clock the model runs by.
    epoch: Instant,
    ready_at: Instant,
    state: Mutex<State>,
    work: Notify,
}

#[derive(Debug)]
pub(crate) struct State {
    model: Model,
    rng: StdRng,
    progress: HashMap<RequestId, watch::Sender<Progress>>,
    http: HttpStatistics,
    iterations: VecDeque<Iteration>,
    answers: u64,
    pub(super) metrics_fault: MetricsFault,
    pub(super) unhealthy: bool,
    hold: Hold,
    held_page: Option<PageState>,
}

/// All a page is rendered from.
#[derive(Clone, Debug)]
pub(super) struct PageState {
    pub(super) view: ModelView,
    pub(super) http: HttpStatistics,
    pub(super) now: Duration,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) generated: u32,
    pub(super) finished: Option<Finished>,
}

impl Replica {
    pub(crate) fn new(config: ServerConfig) -> Result<Self, StartError> {
        let pod_header = HeaderValue::from_str(&config.name).map_err(|_| StartError::Name { name: config.name.clone() })?;
        let bounds = config.engine.bounds(config.profile.max_model_len);
        let max_model_len = config.profile.max_model_len;
        let block_size = config.profile.block_size;
        let model = Model::new(config.profile, config.adapters.clone(), &bounds)?;
        let epoch = Instant::now();
        // A clock before 1970 is a broken machine; the page then says so itself.
        let started_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            name: config.name,
            pod_header,
            model_name: config.model,
            adapters: config.adapters,
            engine: config.engine,
            max_model_len,
            block_size,
            max_body_bytes: config.max_body_bytes,
            pad_page_to: config.pad_page_to,
            seed: config.seed,
            started_at,
            epoch,
            ready_at: epoch + config.start_delay,
            state: Mutex::new(State {
                model,
                rng: StdRng::seed_from_u64(config.seed),
                progress: HashMap::new(),
                http: HttpStatistics::default(),
                iterations: VecDeque::new(),
                answers: 0,
                metrics_fault: MetricsFault::Normal,
                unhealthy: false,
                hold: Hold::Nothing,
                held_page: None,
            }),
            work: Notify::new(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not turn into one here; the state is whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the start: the model's clock.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    pub(super) fn unix_seconds(&self) -> u64 {
        (self.started_at + self.now()).as_secs()
    }

    pub(super) fn is_starting(&self) -> bool {
        Instant::now() < self.ready_at
    }

    pub(super) fn is_unhealthy(&self) -> bool {
        self.lock().unhealthy
    }

    pub(super) fn metrics_fault(&self) -> MetricsFault {
        self.lock().metrics_fault
    }

    pub(crate) fn view(&self) -> ModelView {
        self.lock().model.view()
    }

    pub(super) fn page_state(&self) -> PageState {
        let now = self.now();
        self.lock().page_state(now)
    }

    /// A number no other answer of this replica has.
    pub(super) fn next_answer(&self) -> u64 {
        let mut state = self.lock();
        state.answers += 1;
        state.answers
    }

    pub(super) fn record_http(&self, exchange: HttpExchange) {
        self.lock().http.record(exchange);
    }

    /// Takes the iterations nobody has read yet, with the view they are shown with.
    pub(super) fn take_iterations(&self) -> (VecDeque<Iteration>, ModelView) {
        let mut state = self.lock();
        (std::mem::take(&mut state.iterations), state.model.view())
    }

    /// Queues a request; an output length of 0 is drawn.
    pub(super) fn submit(self: &Arc<Self>, mut request: Request) -> Result<Ticket, SubmitError> {
        let now = self.now();
        let (progress, receiver) = watch::channel(Progress::default());
        let mut state = self.lock();
        let State { model, rng, progress: waiters, .. } = &mut *state;
        if request.output_tokens == 0 {
            let room = self.max_model_len.saturating_sub(request.prompt_tokens);
            request.output_tokens = model.profile().draw_output_tokens(room, rng);
        }
        let id = model.submit(request, now)?;
        waiters.insert(id, progress);
        drop(state);
        self.work.notify_one();
        Ok(Ticket { replica: Arc::clone(self), id, receiver, seen: 0, ended: false })
    }

    fn abort(&self, id: RequestId) {
        let now = self.now();
        let mut state = self.lock();
        state.progress.remove(&id);
        state.model.abort(id, now);
    }

    /// Steps the model for ever; parks while there is nothing to do.
    pub(crate) async fn drive(self: Arc<Self>) {
        let mut clock = self.now();
        loop {
            let started = self.lock().start_step(clock);
            let Some(duration) = started else {
                self.work.notified().await;
                clock = self.now();
                continue;
            };
            // The next step starts where this one should have ended: late timers do not add up.
            clock += duration;
            if duration.is_zero() {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep_until(self.epoch + clock).await;
            }
            self.lock().finish_step(clock, self.engine);
            let now = self.now();
            if now.saturating_sub(clock) > LARGEST_LAG {
                clock = now;
            }
        }
    }
}

impl State {
    fn start_step(&mut self, now: Duration) -> Option<Duration> {
        let Self { model, rng, .. } = self;
        model.start_step(now, rng)
    }

    fn finish_step(&mut self, now: Duration, engine: Engine) {
        let Some(outcome) = self.model.finish_step(now) else { return };
        let StepOutcome { tokens, finished, .. } = outcome;
        // A request's last token and its end are one change: a reader never sees the one without the other.
        let mut finished = finished.into_iter().peekable();
        for id in tokens {
            if let Some(end) = finished.next_if(|end| end.id == id) {
                if let Some(sender) = self.progress.remove(&id) {
                    sender.send_modify(|progress| {
                        progress.generated += 1;
                        progress.finished = Some(end);
                    });
                }
            } else if let Some(sender) = self.progress.get(&id) {
                sender.send_modify(|progress| progress.generated += 1);
            }
        }
        if engine == Engine::Trtllm {
            self.iterations.push_back(self.model.last_step());
            if self.iterations.len() > ITERATIONS_LIMIT {
                self.iterations.pop_front();
            }
        }
    }

    pub(super) fn hold(&mut self, hold: Hold, now: Duration) {
        self.held_page = None;
        self.hold = hold;
        if hold == Hold::Page {
            self.held_page = Some(self.page_state(now));
        }
    }

    fn page_state(&self, now: Duration) -> PageState {
        if let Some(held) = &self.held_page {
            return held.clone();
        }
        let mut view = self.model.view();
        if let Hold::Gauges { running, waiting, kv_cache_usage } = self.hold {
            apply_gauges(&mut view, running, waiting, kv_cache_usage);
        }
        PageState { view, http: self.http.clone(), now }
    }
}

/// A request in the model. Dropped before its end, it is aborted: its client has left.
#[derive(Debug)]
pub(super) struct Ticket {
    replica: Arc<Replica>,
    id: RequestId,
    receiver: watch::Receiver<Progress>,
    /// Tokens already handed out.
    seen: u32,
    ended: bool,
}

/// News of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct News {
    /// Positions of the new tokens: `from..to`.
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) finished: Option<Finished>,
}

impl Ticket {
    /// Waits for more tokens; a slow reader gets several at once. `None`: the replica stopped.
    pub(super) async fn news(&mut self) -> Option<News> {
        // The sender of an ended request is gone, its last value is not: look before waiting.
        let mut progress = *self.receiver.borrow_and_update();
        while progress.generated == self.seen {
            self.receiver.changed().await.ok()?;
            progress = *self.receiver.borrow_and_update();
        }
        let from = std::mem::replace(&mut self.seen, progress.generated);
        self.ended = progress.finished.is_some();
        Some(News { from, to: progress.generated, finished: progress.finished })
    }

    /// Waits for the end. `None`: the replica stopped.
    pub(super) async fn end(&mut self) -> Option<(u32, Finished)> {
        loop {
            let news = self.news().await?;
            if let Some(finished) = news.finished {
                return Some((news.to, finished));
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended {
            self.replica.abort(self.id);
        }
    }
}
