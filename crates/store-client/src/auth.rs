//! etcd's Auth calls: users, roles, and whether they count.
//!
//! Owns which of them are reads and which are writes. Never changes a request.

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::auth_client::AuthClient;

use crate::client::Client;
use crate::error::ClientError;

macro_rules! calls {
    ($($(#[$doc:meta])* $kind:ident $name:ident($request:ident) -> $answer:ident;)*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// As [`Client::read`] or [`Client::write`].
            pub async fn $name(
                &self,
                request: pb::$request,
            ) -> Result<pb::$answer, ClientError> {
                self.$kind(|channel| {
                    let request = request.clone();
                    async move { Ok(AuthClient::new(channel).$name(request).await?.into_inner()) }
                })
                .await
            }
        )*}
    };
}

calls! {
    /// From now on callers are asked who they are.
    write auth_enable(AuthEnableRequest) -> AuthEnableResponse;
    /// From now on nobody is asked.
    write auth_disable(AuthDisableRequest) -> AuthDisableResponse;
    /// Whether callers are asked who they are.
    read auth_status(AuthStatusRequest) -> AuthStatusResponse;
    /// Adds a user.
    write user_add(AuthUserAddRequest) -> AuthUserAddResponse;
    /// The roles of a user.
    read user_get(AuthUserGetRequest) -> AuthUserGetResponse;
    /// All users.
    read user_list(AuthUserListRequest) -> AuthUserListResponse;
    /// Removes a user.
    write user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse;
    /// Sets a user's password.
    write user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse;
    /// Gives a role to a user.
    write user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse;
    /// Takes a role from a user.
    write user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse;
    /// Adds a role.
    write role_add(AuthRoleAddRequest) -> AuthRoleAddResponse;
    /// The permissions of a role.
    read role_get(AuthRoleGetRequest) -> AuthRoleGetResponse;
    /// All roles.
    read role_list(AuthRoleListRequest) -> AuthRoleListResponse;
    /// Removes a role.
    write role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse;
    /// Gives a permission to a role.
    write role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse;
    /// Takes a permission from a role.
    write role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse;
}
