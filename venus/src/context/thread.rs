//! The thread of a context: takes calls out of the mailbox and carries them out in order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::mailbox::Message;
use super::state::ContextState;
use crate::executor::Executor;
use crate::fatal::Fatal;
use crate::object::freed_memory::KEPT_FOR;
use crate::platform;
use crate::session::{Handles, Source};

/// Why the thread carries out no more commands.
enum End {
    /// The front end has dropped the context.
    Stopped,
    /// The context is lost, and the front end still asks for fences and blobs.
    Lost,
}

/// Runs until [`Message::Stop`], and destroys everything that the guest made. A lost context loses
/// it at once.
pub(crate) fn run(state: &Arc<ContextState>) {
    let end = {
        let handles = Handles::new(&state.objects);
        let mut executor = Executor::new(state, &handles, Source::Virtqueue);
        serve(state, &mut executor)
    };
    match end {
        End::Stopped => destroy(state),
        End::Lost => {
            // The driver may take its time, and the guest waits for its fences.
            state.close_queues();
            let of_thread = Arc::clone(state);
            let started = std::thread::Builder::new()
                .name(format!("venus-{}-lost", state.id))
                .spawn(move || destroy(&of_thread));
            if started.is_err() {
                destroy(state);
            }
            answer(state);
        }
    }
}

/// Waits for the other threads of the context and destroys what the guest made.
fn destroy(state: &ContextState) {
    state.rings.join();
    state.clear();
    platform::return_free_memory();
    state.has_ended();
    log::debug!("context {} has ended", state.id);
}

/// Carries out calls.
fn serve(state: &Arc<ContextState>, executor: &mut Executor<'_>) -> End {
    loop {
        // What a ring has freed is released by the ring's thread.
        let patience = (!state.freed_room.is_empty()).then_some(KEPT_FOR);
        let Some(message) = state.mailbox.receive_within(patience) else {
            state.release_old_freed();
            continue;
        };
        match message {
            Message::Submit(mut commands, charge) => {
                submit(state, executor, &mut commands);
                // The bytes are given back when they are there again.
                drop(commands);
                drop(charge);
            }
            Message::Fence(fence) => state.fence(fence),
            Message::CreateBlob { resource, request } => state.create_blob(resource, request),
            Message::Detach(attachment) => state.resources.detach(attachment),
            Message::Stop => return End::Stopped,
            Message::Lost => {}
        }
        if state.lost().is_some() {
            return End::Lost;
        }
    }
}

/// Answers the calls of a lost context.
fn answer(state: &Arc<ContextState>) {
    loop {
        match state.mailbox.receive() {
            Message::Fence(fence) => state.fence(fence),
            Message::CreateBlob { resource, request } => state.create_blob(resource, request),
            Message::Detach(attachment) => state.resources.detach(attachment),
            Message::Submit(..) | Message::Lost => {}
            Message::Stop => return,
        }
    }
}

fn submit(state: &ContextState, executor: &mut Executor<'_>, commands: &mut [u8]) {
    if state.is_stopping() {
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
