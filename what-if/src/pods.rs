//! The pods: created when asked for, ready after minutes, emptied before they go.

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::load::standard_normal;
use crate::replica::{Happened, Job, Replica, ReplicaProfile};
use crate::sample::{FULL_KV, FULL_QUEUE, PodSample};

/// How long a pod that is removed may work on (`terminationGracePeriodSeconds` as weir recommends for streams).
const GRACE: f64 = 120.0;

struct Pod {
    id: u64,
    created: f64,
    ready_at: f64,
    removed: Option<f64>,
    replica: Replica,
}

/// All pods of the pool.
pub(crate) struct Pods {
    pods: Vec<Pod>,
    rng: StdRng,
    start: f64,
    spread: f64,
    created: u64,
    /// Seconds of all pods, from creation to their end.
    pub(crate) pod_seconds: f64,
    counted_until: f64,
    turn: usize,
}

impl Pods {
    /// `ready` pods that are ready; further ones take `start` seconds in the mean, log-normal with `spread`.
    pub(crate) fn new(ready: u32, start: f64, spread: f64, seed: u64) -> Self {
        let mut pods = Self {
            pods: Vec::new(),
            rng: StdRng::seed_from_u64(seed ^ 0x9E37_79B9_7F4A_7C15),
            start,
            spread,
            created: 0,
            pod_seconds: 0.0,
            counted_until: 0.0,
            turn: 0,
        };
        for _ in 0..ready {
            // An hour ago.
            pods.create(-3600.0, -3600.0);
        }
        pods
    }

    fn create(&mut self, created: f64, ready_at: f64) {
        self.pods.push(Pod { id: self.created, created, ready_at, removed: None, replica: Replica::new(ready_at.max(0.0)) });
        self.created += 1;
    }

    fn draw_start(&mut self) -> f64 {
        let location = self.start.max(0.001).ln() - self.spread * self.spread / 2.0;
        (location + self.spread * standard_normal(&mut self.rng)).exp()
    }

    /// Pods that are not being removed.
    pub(crate) fn present(&self) -> u32 {
        self.pods.iter().filter(|pod| pod.removed.is_none()).count() as u32
    }

    /// Those of them that are ready.
    pub(crate) fn ready(&self, now: f64) -> u32 {
        self.pods.iter().filter(|pod| pod.is_ready(now)).count() as u32
    }

    /// Creates or removes pods. A ReplicaSet removes those that are not ready first, then the youngest.
    pub(crate) fn scale(&mut self, now: f64, replicas: u32) {
        for _ in self.present()..replicas {
            let took = self.draw_start();
            self.create(now, now + took);
        }
        for _ in replicas..self.present() {
            let candidates = self.pods.iter_mut().filter(|pod| pod.removed.is_none());
            if let Some(pod) = candidates.max_by(|a, b| a.ready_at.total_cmp(&b.ready_at)) {
                pod.removed = Some(now);
            }
        }
    }

    /// Counts the time until now, and ends removed pods that are empty or over their grace. Returns who lost a request that way.
    pub(crate) fn count(&mut self, now: f64, happened: &mut impl FnMut(Happened)) {
        self.pod_seconds += self.pods.len() as f64 * (now - self.counted_until);
        self.counted_until = now;
        self.pods.retain(|pod| match pod.removed {
            Some(_) if pod.replica.is_empty() => false,
            Some(removed) if now - removed > GRACE => {
                for job in pod.replica.unstarted() {
                    happened(Happened::Left { id: job.id });
                }
                false
            }
            _ => true,
        });
    }

    /// Sends a request to the ready pod with the fewest. `false`: there is none, or with `flow_control` all are full.
    pub(crate) fn send(&mut self, now: f64, job: Job, profile: &ReplicaProfile, flow_control: bool) -> bool {
        if flow_control && self.saturation(now, profile) >= 1.0 {
            return false;
        }
        let count = self.pods.len();
        self.turn += 1;
        let mut best: Option<(usize, usize)> = None;
        for offset in 0..count {
            let index = (self.turn + offset) % count;
            let pod = &self.pods[index];
            if !pod.is_ready(now) {
                continue;
            }
            let load = pod.replica.waiting() + pod.replica.running();
            if best.is_none_or(|(_, least)| load < least) {
                best = Some((index, load));
            }
        }
        let Some((index, _)) = best else { return false };
        self.pods[index].replica.submit(job);
        true
    }

    fn saturation(&self, now: f64, profile: &ReplicaProfile) -> f64 {
        let ready = self.pods.iter().filter(|pod| pod.is_ready(now));
        let full = |pod: &Pod| (pod.replica.waiting() as f64 / FULL_QUEUE).max(pod.replica.kv(profile) / FULL_KV);
        let (count, sum) = ready.fold((0, 0.0), |(count, sum), pod| (count + 1, sum + full(pod)));
        sum / f64::from(count.max(1))
    }

    /// Lets all servers work until `until`.
    pub(crate) fn advance(&mut self, until: f64, profile: &ReplicaProfile, patience: f64, happened: &mut impl FnMut(Happened)) {
        for pod in &mut self.pods {
            if pod.ready_at <= until {
                pod.replica.advance(profile, until, patience, happened);
            }
        }
    }

    /// The pages of the ready pods.
    pub(crate) fn sample(&self, now: f64, profile: &ReplicaProfile) -> Vec<PodSample> {
        let ready = self.pods.iter().filter(|pod| pod.is_ready(now));
        ready.map(|pod| PodSample { id: pod.id, ready_for: now - pod.ready_at, page: pod.replica.page(profile) }).collect()
    }

    /// Start times of pods that became ready after `since`.
    pub(crate) fn started(&self, since: f64, now: f64) -> Vec<f64> {
        let fresh = self.pods.iter().filter(|pod| pod.is_ready(now) && pod.ready_at > since);
        fresh.map(|pod| pod.ready_at - pod.created).collect()
    }
}

impl Pod {
    fn is_ready(&self, now: f64) -> bool {
        self.removed.is_none() && self.ready_at <= now
    }
}
