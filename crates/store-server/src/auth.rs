//! etcd's Auth service: users, roles, tokens.
//!
//! Owns the translation, the hashing of passwords on this node, and what is told of users and roles.
//! What may be changed, and by whom, is decided in apply. Never lets a password go further.

use bytes::Bytes;
use store_api::authpb;
use store_api::errors;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::auth_server::Auth;
use store_api::verdict::Proposed;
use store_mvcc::{AuthOp, Caller, Command, Image, KeyRange, TokenKey};
use store_raft::convert::{permission_from_pb, permission_to_pb};
use tonic::{Request, Response, Status};

use crate::access::caller_of;
use crate::answer::{Answer, auth_error, misfit};
use crate::header::Headers;
use crate::limits::Limits;
use crate::passwords::Passwords;
use crate::patience::Patience;
use crate::reads::Reads;
use crate::tokens::{Tokens, now_ms};
use crate::writes::Writes;

/// The role that may do everything, whatever permissions it has.
const ROOT: &str = "root";

#[derive(Clone)]
pub(crate) struct AuthService {
    writes: Writes,
    reads: Reads,
    headers: Headers,
    passwords: Passwords,
    limits: Limits,
}

/// What all requests have that are not looked into yet.
struct Call {
    caller: Caller,
    patience: Patience,
}

impl AuthService {
    pub(crate) fn new(writes: Writes, reads: Reads, headers: Headers, limits: &Limits) -> Self {
        Self {
            writes,
            reads,
            headers,
            passwords: Passwords::default(),
            limits: limits.clone(),
        }
    }

    fn open<T>(&self, request: Request<T>) -> (T, Call) {
        let call = Call {
            patience: Patience::of(request.metadata(), &self.limits),
            caller: caller_of(&request),
        };
        (request.into_inner(), call)
    }

    /// Makes a change; the header of its answer.
    async fn change(&self, call: &Call, op: AuthOp) -> Result<Option<pb::ResponseHeader>, Status> {
        let command = Command::Auth(op);
        let written = self.writes.submit(&call.caller, command, call.patience);
        let written = written.await?;
        match written.answer {
            Answer::Auth => Ok(Some(self.headers.at(written.revision))),
            _ => Err(misfit()),
        }
    }

    /// What is asked of users and roles is asked of all that was acknowledged.
    async fn read(&self, call: &Call) -> Result<(Image, Option<pb::ResponseHeader>), Status> {
        let image = self.reads.linearizable(call.patience).await?;
        let header = Some(self.headers.at(image.revision()));
        Ok((image, header))
    }
}

fn no_permission() -> Status {
    Proposed::No.mark(errors::permission_not_given())
}

impl Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let (_, call) = self.open(request);
        let key = TokenKey(rand::random());
        let header = self.change(&call, AuthOp::Enable { key }).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let (_, call) = self.open(request);
        let header = self.change(&call, AuthOp::Disable).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let (_, call) = self.open(request);
        let (image, header) = self.read(&call).await?;
        let auth = image.auth();
        auth.check_root(&call.caller).map_err(auth_error)?;
        Ok(Response::new(pb::AuthStatusResponse {
            header,
            enabled: auth.is_enabled(),
            auth_revision: auth.revision(),
        }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let (request, call) = self.open(request);
        let pb::AuthenticateRequest { name, password } = request;
        let (image, header) = self.read(&call).await?;
        let auth = image.auth();
        let key = auth.token_key().ok_or_else(errors::auth_not_enabled)?;
        let hash = auth.user(&name).and_then(|user| user.password_hash.clone());
        if !self.passwords.is_right(password, hash).await? {
            return Err(errors::auth_failed());
        }
        // As of the image that the password was looked up in: should it be changed by now, the token
        // is worthless.
        let token = Tokens::issue(key, &name, auth.revision(), now_ms());
        Ok(Response::new(pb::AuthenticateResponse { header, token }))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let (request, call) = self.open(request);
        let name = request.name;
        if name.is_empty() {
            return Err(Proposed::No.mark(errors::user_empty()));
        }
        let has_none = request.options.is_some_and(|options| options.no_password);
        let hash = match has_none {
            true => None,
            false => Some(self.passwords.hash(request.password).await?),
        };
        let header = self.change(&call, AuthOp::AddUser { name, hash }).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let (request, call) = self.open(request);
        let (image, header) = self.read(&call).await?;
        let auth = image.auth();
        let may = auth.check_see_user(&call.caller, &request.name);
        may.map_err(auth_error)?;
        let user = auth.user(&request.name);
        let user = user.ok_or_else(errors::user_not_found)?;
        let roles = user.roles.iter().cloned().collect();
        Ok(Response::new(pb::AuthUserGetResponse { header, roles }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let (_, call) = self.open(request);
        let (image, header) = self.read(&call).await?;
        let auth = image.auth();
        auth.check_root(&call.caller).map_err(auth_error)?;
        let users = auth.users().map(|(name, _)| name.to_owned()).collect();
        Ok(Response::new(pb::AuthUserListResponse { header, users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let (request, call) = self.open(request);
        let name = request.name;
        let header = self.change(&call, AuthOp::DeleteUser { name }).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let (request, call) = self.open(request);
        let hash = self.passwords.hash(request.password).await?;
        let name = request.name;
        let op = AuthOp::ChangePassword { name, hash };
        let header = self.change(&call, op).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let (request, call) = self.open(request);
        let pb::AuthUserGrantRoleRequest { user, role } = request;
        let header = self.change(&call, AuthOp::GrantRole { user, role }).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let (request, call) = self.open(request);
        let pb::AuthUserRevokeRoleRequest { name: user, role } = request;
        let op = AuthOp::RevokeRole { user, role };
        let header = self.change(&call, op).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let (request, call) = self.open(request);
        let name = request.name;
        let header = self.change(&call, AuthOp::AddRole { name }).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let (request, call) = self.open(request);
        let (image, header) = self.read(&call).await?;
        let auth = image.auth();
        let may = auth.check_see_role(&call.caller, &request.role);
        may.map_err(auth_error)?;
        let role = auth.role(&request.role);
        let role = role.ok_or_else(errors::role_not_found)?;
        let perm = match request.role.as_str() {
            ROOT => vec![everything()],
            _ => role.permissions().iter().map(permission_to_pb).collect(),
        };
        Ok(Response::new(pb::AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let (_, call) = self.open(request);
        let (image, header) = self.read(&call).await?;
        let auth = image.auth();
        auth.check_root(&call.caller).map_err(auth_error)?;
        let roles = auth.roles().map(|(name, _)| name.to_owned()).collect();
        Ok(Response::new(pb::AuthRoleListResponse { header, roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let (request, call) = self.open(request);
        let name = request.role;
        let header = self.change(&call, AuthOp::DeleteRole { name }).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let (request, call) = self.open(request);
        let permission = request.perm.ok_or_else(no_permission)?;
        let permission = permission_from_pb(permission).map_err(|_| no_permission())?;
        let role = request.name;
        let op = AuthOp::GrantPermission { role, permission };
        let header = self.change(&call, op).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse {
            header,
        }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let (request, call) = self.open(request);
        let pb::AuthRoleRevokePermissionRequest {
            role,
            key,
            range_end,
        } = request;
        let range = KeyRange::from_etcd(key, range_end);
        let op = AuthOp::RevokePermission { role, range };
        let header = self.change(&call, op).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse {
            header,
        }))
    }
}

/// The permission that etcd tells of the role root.
fn everything() -> authpb::Permission {
    authpb::Permission {
        perm_type: authpb::permission::Type::Readwrite.into(),
        key: Bytes::new(),
        range_end: Bytes::from_static(b"\0"),
    }
}
