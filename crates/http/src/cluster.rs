//! `/v1/cluster`: the nodes, and who is told of events.

use crate::call::Call;
use crate::compress;
use crate::render::{self, Response};
use carrack_api::{ClusterNode, ClusterState, EventSink};
use carrack_domain::access::{ReadCluster, authorize};
use carrack_domain::{Result, Timestamp};
use http::StatusCode;

/// The nodes that were heard of in the last seconds, with their state and load; a single node: itself. And how far each of
/// those is who are told of events.
#[utoipa::path(
    get, path = "/v1/cluster", tag = "operations",
    responses((status = 200, body = ClusterState), (status = 403, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn get(call: Call) -> Result<Response> {
    let grant = authorize::<ReadCluster>(&call.principal, ())?;
    let cluster = &call.app.service.cluster;
    let nodes = cluster.members(&grant).into_iter().map(|member| ClusterNode {
        id: member.id,
        is_self: member.is_self,
        state: member.about.state,
        version: member.about.version,
        started_at: Timestamp::from_millis(member.about.started_at).to_string(),
        downloads: member.about.downloads,
        jobs: member.about.jobs,
        load: member.about.load,
    });
    let sinks = cluster.sinks(&grant).await?.into_iter().map(|sink| EventSink {
        name: sink.name,
        state: match (sink.is_dead, sink.failing_since) {
            (true, _) => "given_up",
            (false, Some(_)) => "failing",
            (false, None) => "ok",
        }
        .to_owned(),
        pending: sink.pending,
        failing_since: sink.failing_since.map(|since| since.to_string()),
        problem: sink.problem,
    });
    let state = ClusterState { nodes: nodes.collect(), event_sinks: sinks.collect() };
    compress::fresh(&call.headers, render::json(StatusCode::OK, &state)).await
}
