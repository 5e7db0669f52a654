//! The loop that carries commands out: from a chain of a queue to its answer.
//!
//! [`handle`] does it on the thread of the queue. A command that must wait for a blob is deferred,
//! and [`run_deferred`] carries it out on the thread that brings the blob.

use std::ops::Deref;

use virtio_queue::DescriptorChain;
use vm_memory::{GuestAddressSpace, GuestMemoryMmap};
use zerocopy::FromZeros;

use crate::chain;
use crate::command;
use crate::deferred::DeferredCommand;
use crate::engine::{Call, Engine, Progress};
use crate::error::CommandError;
use crate::exchange::Exchange;
use crate::fence::Gate;
use crate::queue::{Outcome, Queue, Taken};
use crate::request::Command;
use crate::wire::Header;

/// Takes a chain: reads its request, carries the command out, or refuses it.
pub(crate) fn handle<M>(
    engine: &Engine,
    queue: Queue,
    memory: &GuestMemoryMmap,
    chain: DescriptorChain<M>,
    taken: Taken,
) -> Outcome
where
    M: Deref<Target = GuestMemoryMmap> + Clone,
{
    let head = chain.head_index();
    let (mut request, space) = chain::open(memory, chain);
    let room = space.room();
    let (header, error) = match request.take::<Header>() {
        Ok(header) => (header, None),
        Err(error) => (Header::new_zeroed(), Some(error)),
    };
    let exchange = engine.begin(queue, (head, taken), header, space);
    if let Some(error) = error {
        return engine.refuse(memory, exchange, &error);
    }
    match Command::parse(
        queue,
        &header,
        &mut request,
        memory,
        &engine.pools,
        engine.resources_3d.is_some(),
    ) {
        Ok(command) => {
            let need = command.answer_size();
            if room < need {
                // A command must not act when the driver has no room to learn of it.
                let error = CommandError::NoRoom { need, have: room };
                return engine.refuse(memory, exchange, &error);
            }
            run(engine, memory, exchange, command)
        }
        Err(error) => engine.refuse(memory, exchange, &error),
    }
}

/// Carries out a command: now, or later when it has to wait for a blob.
fn run(
    engine: &Engine,
    memory: &GuestMemoryMmap,
    mut exchange: Exchange,
    command: Command,
) -> Outcome {
    let targets = command.targets(exchange.header.context_id.get());
    {
        let Ok(mut state) = engine.at(exchange.epoch) else {
            // The reset forgot the chain.
            return Outcome::Held;
        };
        let waits = state.deferred.must_wait(&targets)
            || (command.needs_its_resource()
                && targets.resource.is_some_and(|id| state.is_pending(id)));
        if waits {
            exchange.on_queue = false;
            let mut call = Call {
                engine,
                memory,
                exchange: &mut exchange,
            };
            call.hold(&mut state, Gate::Open);
            let work = DeferredCommand { exchange, command };
            state.deferred.push(targets, work);
            return Outcome::Held;
        }
    }
    execute(engine, memory, exchange, command)
}

fn execute(
    engine: &Engine,
    memory: &GuestMemoryMmap,
    mut exchange: Exchange,
    command: Command,
) -> Outcome {
    let mut call = Call {
        engine,
        memory,
        exchange: &mut exchange,
    };
    match command::execute(&mut call, command) {
        Ok(Progress::Answer(response)) => engine.finish(memory, exchange, response),
        Ok(Progress::Held) => Outcome::Held,
        Err(error) => engine.refuse(memory, exchange, &error),
    }
}

/// Runs every deferred command that can go on. One thread does so at a time. A call that comes
/// while another thread is at it, or from inside a command that it runs, leaves the work to that
/// thread.
pub(crate) fn run_deferred(engine: &Engine) {
    {
        let mut state = engine.state();
        if state.is_running_deferred {
            return;
        }
        state.is_running_deferred = true;
    }
    loop {
        let mut state = engine.state();
        let mut deferred = std::mem::take(&mut state.deferred);
        let work = deferred.take(|id| state.is_pending(id));
        state.deferred = deferred;
        // Set under the lock under which the list was searched: whatever makes another command
        // ready calls again later.
        state.is_running_deferred = work.is_some();
        drop(state);
        let Some(work) = work else {
            return;
        };
        let serial = work.exchange.ticket.serial;
        match engine.guest_memory() {
            Some(memory) => {
                // `on_queue` is false: the transport gets the answer, and this is `Held`.
                let _held = execute(engine, &memory.memory(), work.exchange, work.command);
            }
            None => engine.log_limit.warn(format_args!(
                "a deferred command has no guest memory to answer in"
            )),
        }
        engine.state().deferred.finished(serial);
    }
}
