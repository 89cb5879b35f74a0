//! All services of one node's store, wired.
//!
//! Owns what they share. Spawns nothing: the node runs the tasks and serves the services.

use std::future::Future;
use std::sync::Arc;

use lifecycle::Shutdown;
use rpc::{Answer, MessageLimits, Services};
use store_api::etcdserverpb::auth_server::AuthServer;
use store_api::etcdserverpb::cluster_server::ClusterServer;
use store_api::etcdserverpb::kv_server::KvServer;
use store_api::etcdserverpb::lease_server::LeaseServer;
use store_api::etcdserverpb::maintenance_server::MaintenanceServer;
use store_api::skeinpb::forward_server::ForwardServer;
use store_api::v3electionpb::election_server::ElectionServer;
use store_api::v3lockpb::lock_server::LockServer;
use store_mvcc::{Caller, Command, Image};
use store_raft::Store;
use telemetry::Registry;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::access::{Access, Guarded};
use crate::auth::AuthService;
use crate::autopilot::{self, Liveness};
use crate::cluster::ClusterService;
use crate::damaged;
use crate::election::ElectionService;
use crate::forward::{ForwardService, Introduction};
use crate::gateway::{self, MetricsText, Pages};
use crate::header::Headers;
use crate::health::HealthService;
use crate::history;
use crate::kv::KvService;
use crate::leader_calls::LeaderCalls;
use crate::lease::{LeaseService, LeaseTime};
use crate::limits::{Limits, REQUEST_SLACK};
use crate::lock::LockService;
use crate::maintenance::MaintenanceService;
use crate::members::Members;
use crate::metrics::StoreCollector;
use crate::patience::Patience;
use crate::reads::Reads;
use crate::refusal::Admission;
use crate::require_leader::RequireLeader;
use crate::turns::Turns;
use crate::versions::Versions;
use crate::watch::{WatchHub, WatchService};
use crate::writes::Writes;

/// The servers of one store. A clone serves the same.
#[derive(Clone)]
pub struct StoreServer {
    store: Store,
    writes: Writes,
    reads: Reads,
    access: Access,
    lease_time: LeaseTime,
    leader: Arc<LeaderCalls>,
    members: Members,
    hub: Arc<WatchHub>,
    headers: Headers,
    liveness: Arc<dyn Liveness>,
    limits: Limits,
    shutdown: Shutdown,
}

impl StoreServer {
    /// Wires the servers of `store`. On `shutdown` watch streams end, so that a server that waits
    /// for its connections can stop.
    pub fn new(
        store: Store,
        admission: Arc<dyn Admission>,
        liveness: Arc<dyn Liveness>,
        limits: Limits,
        shutdown: Shutdown,
    ) -> Self {
        let leader = Arc::new(LeaderCalls::new(
            store.status_watch(),
            store.peer_tls().cloned(),
        ));
        let versions = Versions::new(store.clone(), liveness.clone());
        let lease_time = LeaseTime::default();
        let reads = Reads::new(store.clone(), leader.clone(), limits.clone());
        let access = Access::new(store.clone(), reads.clone(), limits.clone());
        let writes = Writes::new(
            admission,
            versions,
            leader.clone(),
            access.clone(),
            lease_time.clone(),
            limits.clone(),
        );
        Self {
            writes,
            reads,
            access,
            leader,
            members: Members::new(store.clone(), liveness.clone()),
            hub: WatchHub::new(store.images(), store.status_watch(), shutdown.clone()),
            headers: Headers::new(store.status_watch()),
            lease_time,
            store,
            liveness,
            limits,
            shutdown,
        }
    }

    /// Adds the store's metrics to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(StoreCollector {
            store: self.store.clone(),
            hub: self.hub.clone(),
            limits: self.limits.clone(),
        }));
    }

    /// The way into the log, for the node's own services.
    pub fn writes(&self) -> Writes {
        self.writes.clone()
    }

    /// An image that has everything that was acknowledged before this call, for the node's own
    /// services.
    ///
    /// # Errors
    /// `Unavailable` when no leader answered in time.
    pub async fn linearizable_image(&self, patience: Patience) -> Result<Image, Status> {
        self.reads.linearizable(patience).await
    }

    /// Whether `caller` may have `command` done, for the node's own services.
    ///
    /// # Errors
    /// etcd's.
    pub async fn admit(
        &self,
        caller: &Caller,
        command: &Command,
        patience: Patience,
    ) -> Result<(), Status> {
        self.access.admit(caller, command, patience).await
    }

    /// How long a request with this metadata, arrived now, looks for a leader.
    pub fn patience(&self, metadata: &MetadataMap) -> Patience {
        Patience::of(metadata, &self.limits)
    }

    /// The services of the client port, with the node's own, which `also` has, and their JSON gateway.
    /// `metrics` tells the node's metrics. Every call is asked who makes it: [`crate::caller_of`] tells.
    pub fn client_services(&self, metrics: MetricsText, also: Services) -> Arc<dyn Answer> {
        let Self {
            store,
            writes,
            reads,
            access,
            headers,
            ..
        } = self;
        let kv = KvService::new(
            store.clone(),
            writes.clone(),
            reads.clone(),
            headers.clone(),
            self.limits.clone(),
        );
        let lease = LeaseService::new(
            writes.clone(),
            reads.clone(),
            headers.clone(),
            self.limits.clone(),
            self.shutdown.clone(),
        );
        let turns = Turns {
            writes: writes.clone(),
            reads: reads.clone(),
            hub: self.hub.clone(),
            headers: headers.clone(),
            limits: self.limits.clone(),
        };
        let cluster = ClusterService {
            store: store.clone(),
            reads: reads.clone(),
            members: self.members.clone(),
            leader: self.leader.clone(),
            headers: headers.clone(),
            limits: self.limits.clone(),
        };
        let maintenance = self.maintenance();
        let auth = AuthService::new(writes.clone(), reads.clone(), headers.clone(), &self.limits);
        let pages = Pages::new(
            store.clone(),
            reads.clone(),
            maintenance.clone(),
            self.limits.clone(),
            metrics,
        );
        let limits = MessageLimits {
            request: self.limits.request_bytes + REQUEST_SLACK,
            ..MessageLimits::default()
        };
        let services = also
            .with(KvServer::new(kv).with_limits(limits))
            .with(self.watch())
            .with(ClusterServer::new(cluster))
            .with(MaintenanceServer::new(maintenance))
            .with(HealthService::new(
                self.store.status_watch(),
                self.store.soundness(),
            ))
            .with(LeaseServer::new(lease))
            .with(AuthServer::new(auth))
            .with(LockServer::new(LockService::new(turns.clone())))
            .with(ElectionServer::new(ElectionService::new(turns)));
        let required = RequireLeader::new(self.store.status_watch());
        gateway::beside(Guarded::new(services, access.clone(), required), pages)
    }

    fn maintenance(&self) -> MaintenanceService {
        MaintenanceService::new(
            self.writes.clone(),
            self.reads.clone(),
            self.access.clone(),
            self.headers.clone(),
            self.limits.clone(),
            self.shutdown.clone(),
        )
    }

    fn watch(&self) -> WatchService {
        WatchService::new(
            self.hub.clone(),
            Some(self.reads.clone()),
            self.headers.clone(),
            self.limits.clone(),
        )
    }

    /// The service of the peer port, beside [`Store::peer_service`]. `introduction` tells who this
    /// node is, each time that somebody asks.
    pub fn forward_service(
        &self,
        introduction: Arc<dyn Fn() -> Introduction + Send + Sync>,
    ) -> ForwardServer<ForwardService> {
        ForwardService::new(
            self.store.clone(),
            self.writes.clone(),
            self.members.clone(),
            self.liveness.clone(),
            introduction,
        )
        .into_server()
    }

    /// Hands the store's changes to watchers until the store or the node stops: run it as a task.
    pub fn watch_task(&self) -> impl Future<Output = ()> + Send + 'static {
        let damage = damaged::follow(self.store.clone(), self.hub.clone());
        let hub = self.hub.clone().follow();
        async move {
            tokio::select! {
                () = hub => {}
                () = damage => {}
            }
        }
    }

    /// Counts the time of leases while this node leads: run it as a task.
    pub fn lease_task(&self) -> impl Future<Output = ()> + Send + 'static {
        let lease_time = self.lease_time.clone();
        lease_time.run(self.store.clone(), self.shutdown.clone())
    }

    /// Looks after the membership, the mesh's version and the history while this node leads: run it
    /// as a task.
    pub fn autopilot_task(&self) -> impl Future<Output = ()> + Send + 'static {
        let members = autopilot::run(
            self.store.clone(),
            self.liveness.clone(),
            self.limits.remove_dead_after,
            self.shutdown.clone(),
        );
        let versions = Versions::new(self.store.clone(), self.liveness.clone());
        let versions = versions.run(self.shutdown.clone());
        let (limits, shutdown) = (self.limits.clone(), self.shutdown.clone());
        let history = history::run(self.store.clone(), limits, shutdown);
        async move {
            tokio::join!(members, versions, history);
        }
    }
}
