//! Signs of life: the lease is renewed, and with it comes what there is to know.

use super::lease::{self, Holder, NodeFields, Renewed, Sign};
use super::serve::{Connection, Context};
use redis::RedisResult;
use std::sync::Arc;
use std::time::Duration;

/// What was heard with a sign of life.
pub(super) enum Heard {
    /// This node's name is another process's.
    Anothers(Holder),
    /// The lease stands; `is_new`: it had not stood before.
    Alive {
        is_new: bool,
        nodes: Vec<NodeFields>,
        moved: Vec<String>,
        is_more: bool,
    },
}

impl Connection<'_> {
    pub(super) fn sign(&mut self) {
        let shared = &mut self.writer.shared;
        if shared.around.health.is_stalled() {
            return self.let_lapse();
        }
        if std::mem::take(&mut self.lapses) {
            tracing::info!("the disk answers: the lease is renewed again");
        }
        let shared = &mut self.writer.shared;
        let totals = shared.around.metrics.totals();
        shared.sign.readiness = shared.around.health.readiness();
        shared.sign.drivers = totals.drivers_connected;
        shared.sign.requests_open = totals.requests_open;
        shared.sign.backlog = totals.registry_backlog;
        let (cx, sign, now_ms) = (Arc::clone(&self.cx), shared.sign.clone(), (shared.around.now_ms)());
        self.signs
            .push(Box::pin(async move { sign_of_life(&cx, &sign, now_ms).await }));
    }

    /// The disk hangs: what is open here stands still, and others take it over when the lease has lapsed. A moment before that this node
    /// stops counting on it; a short hang costs nothing.
    fn let_lapse(&mut self) {
        if !std::mem::replace(&mut self.lapses, true) {
            tracing::error!("the disk hangs: the lease is not renewed until it answers");
        }
        let lasts = Duration::from_millis(self.cx.lease_ms / 3 * 2);
        if self.is_present() && self.renewed_at.elapsed() >= lasts {
            self.writer.shared.present(0);
        }
    }
}

/// Renews the lease, and asks what there is to know.
async fn sign_of_life(cx: &Context, sign: &Sign, now_ms: u64) -> RedisResult<Heard> {
    let is_new = match lease::renew(&cx.link, &cx.scripts, &cx.keys, sign, cx.lease_ms).await? {
        Renewed::No(holder) => return Ok(Heard::Anothers(holder)),
        Renewed::Anew => true,
        Renewed::Yes => false,
    };
    lease::enlist(&cx.link, &cx.keys, &sign.node_id, now_ms).await?;
    let nodes = lease::list(&cx.link, &cx.keys).await?;
    let (moved, is_more) = lease::take_moved(&cx.link, &cx.keys, &sign.node_id).await?;
    Ok(Heard::Alive {
        is_new,
        nodes,
        moved,
        is_more,
    })
}
