//! What users say about the pool's requests: Kubernetes objects, from a cluster or a file, to [`Resources`].

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use kube::core::DynamicObject;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_collector::RequestRules;
use weir_datastore::PoolId;
use weir_epp::resources::{Criticality, InferenceModel, ModelRewrite, Objective, Resources, RewriteRule, Target};
use weir_k8s::{PoolReference, RequestResource};

/// No file of such objects is larger; a mounted device would be.
const MOST_BYTES: u64 = 4 << 20;

/// Which objects are the pool's.
#[derive(Clone, Debug)]
pub(super) struct Belongs {
    pub(super) pool: PoolId,
    /// The pool's API group; none where there is no cluster to ask.
    pub(super) group: Option<&'static str>,
}

impl Belongs {
    fn to(&self, namespace: &str, reference: &PoolReference) -> bool {
        self.is_named(namespace, reference) && self.group.is_none_or(|group| group == &*reference.group)
    }

    fn is_named(&self, namespace: &str, reference: &PoolReference) -> bool {
        // A file may leave the namespace out.
        let here = namespace == &*self.pool.namespace || (self.group.is_none() && namespace.is_empty());
        here && reference.name == self.pool.name
    }

    /// The objects of the pool. As upstream has it, InferenceModels are told by the pool's name alone.
    pub(super) fn resources(&self, rules: &RequestRules) -> Resources {
        let objectives = rules.objectives.iter().filter(|objective| self.to(&objective.namespace, &objective.pool));
        let objectives = objectives.map(|objective| Objective { name: objective.name.clone(), priority: objective.priority });
        let rewrites = rules.rewrites.iter().filter(|rewrite| self.to(&rewrite.namespace, &rewrite.pool));
        let rewrites = rewrites.map(|rewrite| ModelRewrite {
            name: rewrite.name.clone(),
            created: rewrite.created,
            rules: rewrite.rules.iter().map(rewrite_rule).collect(),
        });
        let models = rules.models.iter().filter(|model| self.is_named(&model.namespace, &model.pool));
        let models = models.map(|model| InferenceModel {
            name: model.name.clone(),
            created: model.created,
            model_name: model.model_name.clone(),
            criticality: match model.criticality.as_deref() {
                Some("Critical") => Criticality::Critical,
                Some("Sheddable") => Criticality::Sheddable,
                _ => Criticality::Standard,
            },
            targets: model.targets.iter().map(|target| Target { model: target.name.clone(), weight: target.weight }).collect(),
        });
        Resources::new(objectives.collect(), rewrites.collect(), models.collect())
    }

    /// Hands on what a cluster tells, until `stop`.
    pub(super) async fn follow(
        self,
        mut rules: watch::Receiver<Arc<RequestRules>>,
        resources: watch::Sender<Arc<Resources>>,
        stop: CancellationToken,
    ) {
        loop {
            let known = rules.borrow_and_update().clone();
            resources.send_replace(Arc::new(self.resources(&known)));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = rules.changed() => if changed.is_err() { return },
            }
        }
    }
}

fn rewrite_rule(rule: &weir_k8s::RewriteRule) -> RewriteRule {
    let targets = rule.targets.iter().map(|target| Target { model: target.model.clone(), weight: target.weight });
    RewriteRule { models: rule.models.clone(), targets: targets.collect() }
}

/// The objects of a file, each as `kubectl apply` takes it.
///
/// # Errors
/// Everything that is wrong with any of them.
pub(super) fn of_file(path: &Path) -> anyhow::Result<RequestRules> {
    let name = || format!("--rules {}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(name)?;
    file.take(MOST_BYTES + 1).read_to_string(&mut text).with_context(name)?;
    if text.len() as u64 > MOST_BYTES {
        bail!("{}: larger than {} MiB", name(), MOST_BYTES >> 20);
    }
    of_text(&text).with_context(name)
}

fn of_text(text: &str) -> anyhow::Result<RequestRules> {
    let documents: Vec<Option<DynamicObject>> = serde_saphyr::from_multiple(text).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut rules = RequestRules::default();
    let mut wrong = Vec::new();
    for (position, object) in documents.iter().flatten().enumerate() {
        let types = object.types.clone().unwrap_or_default();
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let Some(resource) = RequestResource::of(&types.api_version, &types.kind) else {
            wrong.push(format!(
                "object {}: `{}` of `{}` is not known: write InferenceObjective, InferenceModelRewrite or InferenceModel of \
                 inference.networking.x-k8s.io/v1alpha2",
                position + 1,
                types.kind.escape_debug(),
                types.api_version.escape_debug()
            ));
            continue;
        };
        if let Err(problems) = rules.add(resource, object) {
            wrong.extend(problems.iter().map(|problem| format!("{} {name}: {problem}", types.kind)));
        }
    }
    if wrong.is_empty() { Ok(rules) } else { bail!("{}", wrong.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTS: &str = "
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceObjective
metadata: { name: batch, namespace: n }
spec: { priority: -1, poolRef: { name: p } }
---
apiVersion: llm-d.ai/v1alpha2
kind: InferenceModelRewrite
metadata: { name: r, namespace: n, creationTimestamp: 2026-01-01T00:00:00Z }
spec: { poolRef: { name: p }, rules: [{ matches: [{ model: { value: gpt } }], targets: [{ modelRewrite: llama }] }] }
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: { name: m, namespace: n }
spec: { modelName: food, criticality: Critical, poolRef: { name: p }, targetModels: [{ name: food-1 }] }
";

    fn names(belongs: &Belongs) -> Vec<String> {
        let resources = belongs.resources(&of_text(OBJECTS).unwrap());
        let mut names: Vec<String> = resources.model_names().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn objects_of_the_pool_become_resources() {
        let pool = |namespace: &str, name: &str, group| Belongs { pool: PoolId::new(namespace, name), group };
        let all = ["food", "food-1", "gpt", "llama"];
        assert_eq!(names(&pool("n", "p", None)), all);
        assert_eq!(names(&pool("n", "p", Some("inference.networking.k8s.io"))), all);
        let old = pool("n", "p", Some("inference.networking.x-k8s.io"));
        assert_eq!(names(&old), ["food", "food-1"], "a rewrite is for pools of the group that it names");
        assert!(names(&pool("n", "q", None)).is_empty() && names(&pool("m", "p", None)).is_empty());
    }

    #[test]
    fn everything_that_is_wrong_in_a_file_is_told_at_once() {
        let broken = OBJECTS.replace("priority: -1", "priority: low").replace("kind: InferenceModel\n", "kind: InferenceModell\n");
        let error = of_text(&broken).unwrap_err().to_string();
        assert!(error.contains("InferenceObjective batch: spec.priority: `low`"), "{error}");
        assert!(error.contains("object 3: `InferenceModell`"), "{error}");
        assert!(of_text("[1, 2").is_err());
        assert_eq!(of_text("").unwrap(), RequestRules::default());
    }
}
