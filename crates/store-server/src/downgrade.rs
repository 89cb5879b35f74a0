//! etcd's `downgrade validate|enable|cancel`: back to the minor version before, node by node.
//!
//! Owns the checks in etcd's words. Enabling lowers the mesh's version at once, so that what is
//! newer is refused and older nodes may start; it is held there until nobody is newer, or until the
//! downgrade is cancelled.

use model::Version;
use store_api::errors;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::downgrade_request::DowngradeAction;
use store_mvcc::{Command, ImageMeta, SetVersionOp};
use tonic::Status;

/// What a request comes down to, as the state is now; `None`: it was only a question.
pub(crate) fn plan(
    meta: ImageMeta,
    request: &pb::DowngradeRequest,
) -> Result<Option<Command>, Status> {
    let agreed = meta
        .version
        .ok_or_else(errors::cluster_version_unavailable)?;
    let action = DowngradeAction::try_from(request.action)
        .map_err(|_| Status::invalid_argument("etcdserver: unknown downgrade action"))?;
    let op = match action {
        DowngradeAction::Validate | DowngradeAction::Enable => {
            let target: Version = request
                .version
                .parse()
                .map_err(|_| errors::wrong_downgrade_version_format())?;
            if agreed.downgrade {
                return Err(errors::downgrade_in_process());
            }
            if agreed.version.before() != Some(target) {
                return Err(errors::invalid_downgrade_target_version());
            }
            SetVersionOp {
                version: target,
                downgrade: true,
            }
        }
        DowngradeAction::Cancel if !agreed.downgrade => {
            return Err(errors::no_inflight_downgrade());
        }
        DowngradeAction::Cancel => SetVersionOp {
            version: agreed.version,
            downgrade: false,
        },
    };
    Ok((action != DowngradeAction::Validate).then_some(Command::SetClusterVersion(op)))
}

/// What a member tells about a downgrade.
pub(crate) fn info(meta: ImageMeta) -> pb::DowngradeInfo {
    match meta.version {
        Some(agreed) if agreed.downgrade => pb::DowngradeInfo {
            enabled: true,
            target_version: agreed.version.to_string(),
        },
        _ => pb::DowngradeInfo::default(),
    }
}
