//! The thread of a context: takes calls out of the mailbox and carries them out in order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::mailbox::{Mailbox, Message};
use super::state::ContextState;
use crate::counters::sub;
use crate::executor::Executor;
use crate::fatal::Fatal;
use crate::platform;
use crate::session::{Handles, Source};

/// Runs until [`Message::Stop`], then destroys everything that the guest made.
pub(crate) fn run(state: &Arc<ContextState>, mailbox: &Mailbox) {
    {
        let handles = Handles::new(&state.objects);
        let mut executor = Executor::new(state, &handles, Source::Virtqueue);
        serve(state, mailbox, &mut executor);
    }
    state.rings.join();
    state.clear();
    platform::return_free_memory();
    sub(&state.tally.contexts, 1);
    log::debug!("context {} has ended", state.id);
}

fn serve(state: &Arc<ContextState>, mailbox: &Mailbox, executor: &mut Executor<'_>) {
    loop {
        match mailbox.receive() {
            Message::Submit(mut commands) => submit(state, executor, &mut commands),
            Message::Fence { ring, fence } => state.fence(ring, fence),
            Message::CreateBlob { resource, request } => state.create_blob(resource, request),
            Message::Detach(attachment) => state.resources.detach(attachment),
            Message::Stop => return,
        }
    }
}

fn submit(state: &ContextState, executor: &mut Executor<'_>, commands: &mut [u8]) {
    if state.lost().is_some() || state.is_stopping() {
        return;
    }
    // A panic costs this context, not the process.
    let result = catch_unwind(AssertUnwindSafe(|| executor.execute(commands)));
    let result = result.unwrap_or_else(|_| {
        executor.end_batch(0);
        Err(Fatal::Panic)
    });
    if let Err(fatal) = result {
        state.fail(fatal);
    }
}
