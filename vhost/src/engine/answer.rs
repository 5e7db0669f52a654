//! Answers: written into guest memory, in the order of their timelines, each once.

use vm_memory::{GuestAddressSpace, GuestMemoryMmap};
use zerocopy::IntoBytes;

use super::Engine;
use crate::chain::AnswerSpace;
use crate::error::CommandError;
use crate::exchange::Exchange;
use crate::fence::{Gate, Held, Ticket, Timeline, Timelines};
use crate::queue::Outcome;
use crate::response::Response;
use crate::wire::{self, Header};

impl Engine {
    /// Answers with an error, and says why in the log.
    pub(crate) fn refuse(
        &self,
        memory: &GuestMemoryMmap,
        exchange: Exchange,
        error: &CommandError,
    ) -> Outcome {
        self.log_error(&exchange.header, error);
        self.finish(memory, exchange, Response::bare(error.code()))
    }

    /// Logs why a command was refused.
    pub(crate) fn log_error(&self, header: &Header, error: &CommandError) {
        self.log_limit.warn(format_args!(
            "{} refused: {error}",
            wire::command_name(header.kind.get())
        ));
    }

    /// Answers a command, at once or when the commands before it on its timeline are answered.
    pub(crate) fn finish(
        &self,
        memory: &GuestMemoryMmap,
        mut exchange: Exchange,
        response: Response,
    ) -> Outcome {
        let ticket = exchange.ticket;
        let mut state = self.state();
        if state.epoch != exchange.epoch {
            // The reset forgot the chain. The new driver owns its memory.
            return Outcome::Held;
        }
        match exchange.space.take() {
            Some(space) if exchange.on_queue && state.timelines.is_empty(ticket.timeline) => {
                drop(state);
                Outcome::Done {
                    written: self.write(memory, &space, &exchange.header, &response),
                }
            }
            Some(mut space) => {
                space.shrink_to((size_of::<Header>() + response.body.len()) as u64);
                let held = Held {
                    serial: ticket.serial,
                    queue: exchange.queue,
                    head: exchange.head,
                    taken: exchange.taken,
                    header: exchange.header,
                    space,
                    response: Some(response),
                    gate: Gate::Open,
                };
                state.timelines.push(ticket.timeline, held);
                drop(state);
                Outcome::Held
            }
            None => {
                if let Some(held) = state.timelines.find(ticket) {
                    held.response = Some(response);
                }
                drop(state);
                let own = exchange.on_queue.then_some(ticket.serial);
                match self.deliver(ticket.timeline, own) {
                    Some(written) => Outcome::Done { written },
                    None => Outcome::Held,
                }
            }
        }
    }

    /// Gives the response of a held command that another thread finished.
    pub(crate) fn respond(&self, ticket: Ticket, response: Response) {
        if let Some(held) = self.state().timelines.find(ticket) {
            held.response = Some(response);
        }
        self.deliver(ticket.timeline, None);
    }

    /// Gives the response of a held command from its result, and logs why it failed.
    pub(crate) fn respond_with(
        &self,
        ticket: Ticket,
        header: &Header,
        result: Result<(), CommandError>,
    ) {
        let response = match result {
            Ok(()) => Response::ok(),
            Err(error) => {
                self.log_error(header, &error);
                Response::bare(error.code())
            }
        };
        self.respond(ticket, response);
    }

    /// Answers what can be answered in a timeline. When the command with serial `own` is among it,
    /// its answer is written and the length returned: the caller passes it on.
    pub(crate) fn deliver(&self, timeline: Timeline, own: Option<u64>) -> Option<u32> {
        self.deliver_from(|timelines| timelines.pop(timeline), own)
    }

    /// Answers what can be answered in all timelines.
    pub(crate) fn deliver_all(&self) {
        self.deliver_from(Timelines::pop_any, None);
    }

    fn deliver_from(
        &self,
        mut pop: impl FnMut(&mut Timelines) -> Option<Held>,
        own: Option<u64>,
    ) -> Option<u32> {
        let mut own_written = None;
        loop {
            let mut state = self.state();
            if state.stopped {
                return own_written;
            }
            let Some(held) = pop(&mut state.timelines) else {
                return own_written;
            };
            state.delivering += 1;
            drop(state);
            self.deliver_one(&held, own, &mut own_written);
            let mut state = self.state();
            state.delivering -= 1;
            if state.delivering == 0 {
                self.delivered.notify_all();
            }
        }
    }

    fn deliver_one(&self, held: &Held, own: Option<u64>, own_written: &mut Option<u32>) {
        let written = match (self.guest_memory(), &held.response) {
            (Some(memory), Some(response)) => {
                self.write(&memory.memory(), &held.space, &held.header, response)
            }
            _ => {
                self.log_limit
                    .warn(format_args!("a late answer has no guest memory to go to"));
                0
            }
        };
        if own == Some(held.serial) {
            *own_written = Some(written);
            return;
        }
        match self.transport() {
            Ok(transport) => transport.complete(held.queue, held.head, held.taken, written),
            Err(error) => self.log_error(&held.header, &error),
        }
    }

    /// Writes an answer into guest memory and returns its length, or 0 when it did not fit.
    fn write(
        &self,
        memory: &GuestMemoryMmap,
        space: &AnswerSpace,
        request: &Header,
        response: &Response,
    ) -> u32 {
        let need = (size_of::<Header>() + response.body.len()) as u64;
        let too_small = space.room() < need;
        let (kind, body): (u32, &[u8]) = if too_small {
            (wire::RESP_ERR_UNSPEC, &[])
        } else {
            (response.kind, &response.body)
        };
        let header = answer_header(request, kind);
        // A cursor command needs no answer. Drivers leave no room for one.
        let silent = space.room() == 0
            && matches!(
                request.kind.get(),
                wire::CMD_UPDATE_CURSOR | wire::CMD_MOVE_CURSOR
            );
        if too_small && !silent {
            let have = space.room();
            self.log_error(request, &CommandError::NoRoom { need, have });
        }
        if space.room() < size_of::<Header>() as u64 {
            return 0;
        }
        match space.write(memory, [header.as_bytes(), body]) {
            Ok(written) => written,
            Err(error) => {
                self.log_error(request, &error);
                0
            }
        }
    }
}

/// The header of an answer. It echoes the fence of the request (virtio-v1.4 §5.7.6.7).
fn answer_header(request: &Header, kind: u32) -> Header {
    let fenced = request.flags.get() & wire::FLAG_FENCE != 0;
    let mut header = Header {
        kind: kind.into(),
        flags: 0.into(),
        ..*request
    };
    if fenced {
        let echoed = wire::FLAG_FENCE | wire::FLAG_INFO_RING_IDX;
        header.flags = (request.flags.get() & echoed).into();
    } else {
        header.fence_id = 0.into();
        header.context_id = 0.into();
        header.ring_index = 0;
    }
    header.padding = [0; 3];
    header
}
