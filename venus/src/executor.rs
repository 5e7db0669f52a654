//! [`Executor`]: decodes a stream command by command and calls each command's handler.
//!
//! Every decoding thread has an executor: the context's own thread, and each ring's. What a handler
//! needs of its thread is its [`Session`].
//!
//! Nothing is allocated per command. Arguments live in an arena that is reset before the next
//! command, handles are found without a lock, and the device is looked up once per batch.

use std::sync::Arc;

use crate::command::HANDLERS;
use crate::command_stream::{RingStream, Stream};
use crate::context::state::ContextState;
use crate::fatal::Fatal;
use crate::ring::{self, Consumer, Ring};
use crate::saved_stream::SavedStream;
use crate::session::{Buffers, Handles, Session, Source};

/// Decodes and carries out streams.
pub(crate) struct Executor<'s> {
    session: Session<'s>,
    buffers: Buffers,
    saved: Option<SavedStream>,
}

impl<'s> Executor<'s> {
    /// An executor for one thread.
    pub(crate) fn new(
        state: &'s Arc<ContextState>,
        handles: &'s Handles<'s>,
        source: Source,
    ) -> Self {
        let session = Session::new(state, handles, source, &HANDLERS, run_ring);
        let folder = state.save_streams.as_deref();
        Self {
            session,
            buffers: Buffers::new(state),
            saved: folder.and_then(|folder| SavedStream::create(folder, state.id)),
        }
    }

    /// Carries out a batch of commands in private memory.
    pub(crate) fn execute(&mut self, commands: &mut [u8]) -> Result<(), Fatal> {
        if let Some(saved) = &mut self.saved {
            // Decoding changes arguments in place, so save them before.
            saved.add(commands);
        }
        self.session.begin_batch(0);
        let ended = self.session.run_batch(commands, &mut self.buffers);
        self.end_batch(commands.len());
        ended
    }

    /// Ends a batch. Called again after a panic.
    #[inline]
    pub(crate) fn end_batch(&mut self, bytes: usize) {
        self.buffers.settle();
        self.session.end_batch(bytes);
        let state = self.session.state;
        if !state.freed_room.is_empty() && state.freed_room.is_time_to_look() {
            state.release_old_freed();
        }
    }

    /// Saves a stream, piece by piece.
    #[cold]
    fn save(&mut self, stream: &RingStream<'_>) {
        let piece = self.session.piece();
        let mut bytes = Vec::new();
        for from in (0..stream.len()).step_by(piece) {
            bytes.clear();
            let count = piece.min(stream.len() - from);
            if let (Some(()), Some(saved)) = (
                stream.append_to(from, count, &mut bytes),
                self.saved.as_mut(),
            ) {
                saved.add(&bytes);
            }
        }
    }
}

impl Consumer for Executor<'_> {
    fn consume(&mut self, stream: &RingStream<'_>) -> Result<(), Fatal> {
        if self.saved.is_some() {
            self.save(stream);
        }
        self.session.begin_batch(stream.head);
        let ended = self.session.run_stream(stream, &mut self.buffers);
        self.end_batch(stream.len());
        ended
    }

    fn idle(&mut self) {
        self.buffers.release();
        self.session.release();
        self.session.state.release_old_freed();
    }
}

/// The thread of a ring.
fn run_ring(state: &Arc<ContextState>, ring: Arc<Ring>) {
    let handles = Handles::new(&state.objects);
    let source = Source::Ring {
        ring: Arc::clone(&ring),
        head: 0,
    };
    let mut executor = Executor::new(state, &handles, source);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ring::run(&ring, &mut executor)
    }));
    if let Err(fatal) = ended.unwrap_or(Err(Fatal::Panic)) {
        state.fail(fatal);
    }
}
