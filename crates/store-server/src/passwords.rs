//! Passwords: hashed where they arrive, and compared there.
//!
//! Owns the cost of both. Hashing is slow on purpose, so it is done off the runtime, a few at a
//! time, and who comes while too many wait is sent away: whoever tries passwords slows down others
//! who sign in, and nobody else. Never lets a password into the log.

use std::sync::Arc;

use bcrypt::BcryptError;
use store_api::errors;
use store_api::verdict::Proposed;
use store_mvcc::Hash;
use tokio::sync::Semaphore;
use tonic::Status;

/// The work for one hash, as in etcd: some 50 ms.
const COST: u32 = 10;
/// bcrypt looks at no more of a password.
const PASSWORD_BYTES_MAX: usize = 72;
/// So many are hashed at a time.
const AT_ONCE: usize = 2;
/// So many may wait or be under way.
const PLACES: usize = 64;
/// Compared with where there is no user, so that the time tells nothing: a salt and a hash of zeros.
const NOBODYS: &str = "$2b$10$.....................................................";

/// Hashes and compares. A clone shares the places.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES)),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Passwords {
    /// The hash of a new password.
    ///
    /// # Errors
    /// The password is empty or too long, or too many wait.
    pub(crate) async fn hash(&self, password: String) -> Result<Hash, Status> {
        let refuse = |text: String| Err(Proposed::No.mark(Status::invalid_argument(text)));
        if password.is_empty() {
            return refuse(
                "skein: the password is empty; give one, or add the user with no_password".into(),
            );
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return refuse(format!(
                "skein: the password is longer than {PASSWORD_BYTES_MAX} bytes; shorten it"
            ));
        }
        let salt: [u8; 16] = rand::random();
        let hashed = self.work(move || bcrypt::hash_with_salt(password, COST, salt));
        let hashed = hashed.await?.map_err(|fault| failed(&fault))?;
        Ok(Hash(hashed.to_string()))
    }

    /// Whether the password is that of the hash; it is of none.
    ///
    /// # Errors
    /// Too many wait.
    pub(crate) async fn is_right(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, Status> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| NOBODYS.to_owned());
        let right = self.work(move || bcrypt::verify(password, &hash)).await?;
        // A hash that cannot be read is nobody's.
        Ok(right.unwrap_or(false) && known)
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, BcryptError> + Send + 'static,
    ) -> Result<Result<T, BcryptError>, Status> {
        let busy = || Proposed::No.mark(errors::too_many_requests());
        let _place = self.places.try_acquire().map_err(|_| busy())?;
        // Given back when the work is done, even if nobody waits for it any more.
        let turn = self.turns.clone().acquire_owned();
        let turn = turn.await.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(|fault| failed(&fault))
    }
}

fn failed(fault: &dyn std::fmt::Display) -> Status {
    let text = format!("skein: the password cannot be hashed: {fault}");
    Proposed::No.mark(Status::internal(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_itself_is_right() {
        let passwords = Passwords::default();
        let right = "correct horse".to_owned();
        let hash = passwords.hash(right.clone()).await.unwrap();
        assert!(hash.0.starts_with("$2b$10$"), "{}", hash.0);
        assert_ne!(hash, passwords.hash(right.clone()).await.unwrap(), "salted");
        let is_right = async |password: &str, hash: Option<&Hash>| {
            let hash = hash.map(|hash| hash.0.clone());
            passwords.is_right(password.to_owned(), hash).await.unwrap()
        };
        assert!(is_right(&right, Some(&hash)).await);
        for wrong in ["", "correct hors", "correct horsf", &"x".repeat(100)] {
            assert!(!is_right(wrong, Some(&hash)).await, "{wrong}");
        }
        assert!(!is_right(&right, None).await);
        assert!(!is_right("", None).await);
        assert!(!is_right(&right, Some(&Hash("rubbish".to_owned()))).await);
    }

    #[tokio::test]
    async fn what_bcrypt_would_cut_off_is_refused() {
        let passwords = Passwords::default();
        let longest = "x".repeat(PASSWORD_BYTES_MAX);
        let hash = passwords.hash(longest.clone()).await.unwrap();
        let other = format!("{}y", &longest[1..]);
        assert!(
            !passwords
                .is_right(other, Some(hash.0.clone()))
                .await
                .unwrap()
        );
        let right = passwords.is_right(longest.clone(), Some(hash.0)).await;
        assert!(right.unwrap());
        for bad in [longest + "x", String::new()] {
            let refused = passwords.hash(bad).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        }
    }

    #[tokio::test]
    async fn who_comes_when_too_many_wait_is_sent_away() {
        let passwords = Passwords::default();
        let held = passwords.places.acquire_many(PLACES as u32).await.unwrap();
        let refused = passwords.is_right("x".to_owned(), None).await.unwrap_err();
        assert_eq!(refused.message(), errors::too_many_requests().message());
        drop(held);
        assert!(!passwords.is_right("x".to_owned(), None).await.unwrap());
    }
}
