//! Gateway API and what belongs to it.

use super::facts;
use super::meta::{Condition, Meta, Selector};

facts! {
    /// `gateway.networking.k8s.io` Gateway.
    Gateway { metadata: Meta, spec: GatewaySpec, status: GatewayStatus, }
    GatewaySpec { gateway_class_name: String, listeners: Vec<Listener>, }
    Listener { name: String, hostname: String, port: i64, protocol: String, allowed_routes: AllowedRoutes, }
    AllowedRoutes { namespaces: RouteNamespaces, }
    RouteNamespaces { from: String, selector: Selector, }
    GatewayStatus { conditions: Vec<Condition>, }

    /// `gateway.networking.k8s.io` HTTPRoute.
    Route { metadata: Meta, spec: RouteSpec, status: RouteStatus, }
    RouteSpec { parent_refs: Vec<ParentReference>, hostnames: Vec<String>, rules: Vec<Rule>, }
    ParentReference { group: String, kind: String, namespace: String, name: String, section_name: String, }
    Rule { matches: Vec<Match>, filters: Vec<Filter>, backend_refs: Vec<BackendReference>, timeouts: Timeouts, }
    Match { headers: Vec<HeaderMatch>, }
    HeaderMatch { name: String, r#type: String, value: String, }
    Filter { r#type: String, }
    BackendReference { group: String, kind: String, namespace: String, name: String, weight: i64, filters: Vec<Filter>, }
    Timeouts { request: String, backend_request: String, }
    RouteStatus { parents: Vec<RouteParent>, }
    RouteParent { parent_ref: ParentReference, controller_name: String, conditions: Vec<Condition>, }

    /// `gateway.networking.k8s.io` ReferenceGrant.
    Grant { metadata: Meta, spec: GrantSpec, }
    GrantSpec { from: Vec<GrantFrom>, to: Vec<GrantTo>, }
    GrantFrom { group: String, kind: String, namespace: String, }
    GrantTo { group: String, kind: String, name: String, }

    /// `networking.istio.io` DestinationRule.
    DestinationRule { metadata: Meta, spec: DestinationRuleSpec, }
    DestinationRuleSpec { host: String, traffic_policy: TrafficPolicy, }
    TrafficPolicy { tls: ClientTls, }
    ClientTls { mode: String, }
}
