//! Which clusters got other members lately.
//!
//! Owns a short memory, so that who follows looks at those alone. Who fell behind it looks at all.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

/// So many changes are remembered.
const RECENT_MAX: usize = 64;

/// The changes so far.
#[derive(Debug, Default)]
pub(crate) struct News {
    count: u64,
    /// The keys of the clusters that changed last, oldest first.
    recent: VecDeque<Arc<str>>,
}

impl News {
    /// Another cluster changed.
    pub(crate) fn add(&mut self, key: Arc<str>) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(key);
        self.count += 1;
    }

    /// What changed after the first `seen` changes; `None`: more than is remembered.
    fn since(&self, seen: u64) -> Option<Vec<Arc<str>>> {
        let missed = usize::try_from(self.count.saturating_sub(seen)).ok()?;
        let from = self.recent.len().checked_sub(missed)?;
        Some(self.recent.range(from..).cloned().collect())
    }
}

/// Hears which clusters have other members: other endpoints, or others of them that may be chosen.
#[derive(Debug, Clone)]
pub struct Moves {
    news: watch::Receiver<News>,
    seen: u64,
}

impl Moves {
    pub(crate) fn new(news: watch::Receiver<News>) -> Self {
        Self { news, seen: 0 }
    }

    /// Waits for a change. False: there will be none any more.
    pub async fn changed(&mut self) -> bool {
        self.news.changed().await.is_ok()
    }

    /// The keys of the clusters that changed since the last time; `None`: there were too many.
    pub fn take(&mut self) -> Option<Vec<Arc<str>>> {
        let news = self.news.borrow_and_update();
        let since = news.since(self.seen);
        self.seen = news.count;
        since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_heard_once_and_too_many_are_all() {
        let sender = watch::Sender::new(News::default());
        let mut moves = Moves::new(sender.subscribe());
        let add = |key: &str| sender.send_modify(|news| news.add(key.into()));
        let taken = |moves: &mut Moves| moves.take().map(|keys| keys.join(" "));
        assert_eq!(taken(&mut moves).as_deref(), Some(""));
        add("a");
        add("b");
        assert_eq!(taken(&mut moves).as_deref(), Some("a b"));
        assert_eq!(taken(&mut moves).as_deref(), Some(""));
        for _ in 0..RECENT_MAX {
            add("c");
        }
        assert_eq!(moves.clone().take().unwrap().len(), RECENT_MAX);
        add("d");
        assert_eq!(moves.take(), None);
        assert_eq!(taken(&mut moves).as_deref(), Some(""));
    }
}
