//! etcd's errors, letter by letter: clients compare the texts.
//!
//! Owns text and gRPC code of each. Never decides when one applies.

use tonic::Status;

macro_rules! etcd_errors {
    ($($(#[$doc:meta])* $name:ident = $code:ident $text:literal;)*) => {
        $(
            $(#[$doc])*
            pub fn $name() -> Status {
                Status::new(tonic::Code::$code, $text)
            }
        )*

        #[cfg(test)]
        const ALL: &[(&str, fn() -> Status)] = &[$((stringify!($name), $name as fn() -> Status)),*];
    };
}

etcd_errors! {
    /// A request without a key.
    empty_key = InvalidArgument "etcdserver: key is not provided";
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    key_not_found = InvalidArgument "etcdserver: key not found";
    /// A value beside `ignore_value`.
    value_provided = InvalidArgument "etcdserver: value is provided";
    /// A lease beside `ignore_lease`.
    lease_provided = InvalidArgument "etcdserver: lease is provided";
    /// More operations in a txn than allowed.
    too_many_ops = InvalidArgument "etcdserver: too many operations in txn request";
    /// A txn that changes one key twice.
    duplicate_key = InvalidArgument "etcdserver: duplicate key given in txn request";
    /// An unknown sort order or target.
    invalid_sort_option = InvalidArgument "etcdserver: invalid sort option";
    /// A client version header that is not one.
    invalid_client_api_version = InvalidArgument "etcdserver: invalid client api version";
    /// History that compaction dropped.
    compacted = OutOfRange "etcdserver: mvcc: required revision has been compacted";
    /// A revision not reached yet.
    future_revision = OutOfRange "etcdserver: mvcc: required revision is a future revision";
    /// The quota is used up.
    no_space = ResourceExhausted "etcdserver: mvcc: database space exceeded";

    /// An unknown lease.
    lease_not_found = NotFound "etcdserver: requested lease not found";
    /// A lease id that is taken.
    lease_exists = FailedPrecondition "etcdserver: lease already exists";
    /// A time to live beyond the maximum.
    lease_ttl_too_large = OutOfRange "etcdserver: too large lease TTL";

    /// A watch that ended.
    watch_canceled = Cancelled "etcdserver: watch canceled";

    /// A member id that is taken.
    member_exists = FailedPrecondition "etcdserver: member ID already exist";
    /// A peer address that is taken.
    peer_url_exists = FailedPrecondition "etcdserver: Peer URLs already exists";
    /// A membership change that would lose the quorum.
    member_not_enough_started = FailedPrecondition
        "etcdserver: re-configuration failed due to not enough started members";
    /// A member address that is not one.
    member_bad_urls = InvalidArgument "etcdserver: given member URLs are invalid";
    /// An unknown member.
    member_not_found = NotFound "etcdserver: member not found";
    /// Promotion of a voter.
    member_not_learner = FailedPrecondition "etcdserver: can only promote a learner member";
    /// Promotion of a learner that lags.
    learner_not_ready = FailedPrecondition
        "etcdserver: can only promote a learner member which is in sync with leader";
    /// One learner too many.
    too_many_learners = FailedPrecondition "etcdserver: too many learner members in cluster";

    /// A request beyond the size limit.
    request_too_large = InvalidArgument "etcdserver: request is too large";
    /// Overload: nothing was proposed.
    too_many_requests = ResourceExhausted "etcdserver: too many requests";

    /// Authentication needs the user root.
    root_user_not_exist = FailedPrecondition "etcdserver: root user does not exist";
    /// Authentication needs root to have the role root.
    root_role_not_exist = FailedPrecondition "etcdserver: root user does not have root role";
    /// A user name that is taken.
    user_already_exists = FailedPrecondition "etcdserver: user name already exists";
    /// A user without a name.
    user_empty = InvalidArgument "etcdserver: user name is empty";
    /// An unknown user.
    user_not_found = FailedPrecondition "etcdserver: user name not found";
    /// A role name that is taken.
    role_already_exists = FailedPrecondition "etcdserver: role name already exists";
    /// An unknown role.
    role_not_found = FailedPrecondition "etcdserver: role name not found";
    /// A role without a name.
    role_empty = InvalidArgument "etcdserver: role name is empty";
    /// Wrong name or password.
    auth_failed = InvalidArgument
        "etcdserver: authentication failed, invalid user ID or password";
    /// A grant without a permission.
    permission_not_given = InvalidArgument "etcdserver: permission not given";
    /// Not allowed.
    permission_denied = PermissionDenied "etcdserver: permission denied";
    /// The user does not have the role.
    role_not_granted = FailedPrecondition "etcdserver: role is not granted to the user";
    /// The role does not have the permission.
    permission_not_granted = FailedPrecondition
        "etcdserver: permission is not granted to the role";
    /// Authentication is off.
    auth_not_enabled = FailedPrecondition "etcdserver: authentication is not enabled";
    /// A token that is unknown or expired.
    invalid_auth_token = Unauthenticated "etcdserver: invalid auth token";
    /// A change that would lock everybody out.
    invalid_auth_management = InvalidArgument "etcdserver: invalid auth management";
    /// A token from before the last change of users and roles.
    auth_old_revision = InvalidArgument "etcdserver: revision of auth store is old";

    /// There is no leader.
    no_leader = Unavailable "etcdserver: no leader";
    /// Only the leader can do this.
    not_leader = FailedPrecondition "etcdserver: not leader";
    /// Leadership moved while the request was under way.
    leader_changed = Unavailable "etcdserver: leader changed";
    /// The members' versions do not allow this yet.
    not_capable = FailedPrecondition "etcdserver: not capable";
    /// The server is stopping.
    stopped = Unavailable "etcdserver: server stopped";
    /// No answer in time.
    timeout = Unavailable "etcdserver: request timed out";
    /// No answer in time, around a change of leader.
    timeout_due_to_leader_fail = Unavailable
        "etcdserver: request timed out, possibly due to previous leader failure";
    /// No answer in time, around a lost connection.
    timeout_due_to_connection_lost = Unavailable
        "etcdserver: request timed out, possibly due to connection lost";
    /// This member lags too far behind to read.
    timeout_wait_applied_index = Unavailable
        "etcdserver: request timed out, waiting for the applied index took too long";
    /// Too many members are down.
    unhealthy = Unavailable "etcdserver: unhealthy cluster";
    /// Members' data differ.
    corrupt = DataLoss "etcdserver: corrupt cluster";
    /// Learners do not serve this.
    not_supported_for_learner = FailedPrecondition "etcdserver: rpc not supported for learner";
    /// Leadership cannot go to that member.
    bad_leader_transferee = FailedPrecondition "etcdserver: bad leader transferee";

    /// A downgrade target that is not a version.
    wrong_downgrade_version_format = InvalidArgument
        "etcdserver: wrong downgrade target version format";
    /// A downgrade target that is not allowed.
    invalid_downgrade_target_version = InvalidArgument
        "etcdserver: invalid downgrade target version";
    /// The cluster version is not known yet.
    cluster_version_unavailable = FailedPrecondition
        "etcdserver: cluster version not found during downgrade";
    /// A downgrade is under way.
    downgrade_in_process = FailedPrecondition
        "etcdserver: cluster has a downgrade job in progress";
    /// There is no downgrade to cancel.
    no_inflight_downgrade = FailedPrecondition "etcdserver: no inflight downgrade job";

    /// The caller went away.
    request_canceled = Cancelled "etcdserver: request canceled";
    /// The caller's deadline passed.
    deadline_exceeded = DeadlineExceeded "etcdserver: context deadline exceeded";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_text_is_etcds_and_unique() {
        let mut seen = HashSet::new();
        for (name, error) in ALL {
            let status = error();
            assert!(status.message().starts_with("etcdserver: "), "{name}");
            assert!(
                seen.insert(status.message().to_owned()),
                "{name}: text used twice"
            );
            assert_ne!(status.code(), tonic::Code::Ok, "{name}");
        }
    }
}
