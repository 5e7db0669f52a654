//! [`Calls`]: carries out the main process' calls on the context, in their order.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use hesper_system::LogLimit;
use hesper_venus::{Blob, Context, GuestPages, SharedMemory};

use super::super::channel::Receiver;
use super::super::message::{FromWorker, Piece, Run, ToWorker};
use super::consumed::Consumed;
use super::events::Lent;
use super::failure::Failure;
use super::line::Line;

/// Limits the lines about memory that cannot be attached: a guest chooses how often.
static REFUSED: LogLimit = LogLimit::new("hesper_venus");

/// The context, and what the main process has attached to it.
pub(super) struct Calls {
    context: Context,
    line: Arc<Line>,
    consumed: Arc<Consumed>,
    lent: Arc<Lent>,
    /// The resources that are the guest's own memory.
    of_guest: HashSet<u32>,
}

impl Calls {
    pub(super) fn new(
        context: Context,
        line: Arc<Line>,
        consumed: Arc<Consumed>,
        lent: Arc<Lent>,
    ) -> Self {
        Self {
            context,
            line,
            consumed,
            lent,
            of_guest: HashSet::new(),
        }
    }

    /// Carries out calls until [`ToWorker::End`].
    ///
    /// # Errors
    /// The main process is gone or has sent something wrong.
    pub(super) fn serve(mut self, calls: &mut Receiver) -> Result<(), Failure> {
        loop {
            let (call, fds) = calls.receive()?.decode()?;
            match call {
                ToWorker::Submit(commands) => {
                    let charge = self.consumed.charge(commands.len());
                    self.context.submit_charged(commands, charge);
                }
                ToWorker::Fence { ring, fence } => self.context.fence(ring, fence),
                ToWorker::CreateBlob { resource, request } => {
                    self.context.create_blob(resource, request);
                }
                ToWorker::Attach { resource, memory } => self.attach(resource, &memory, fds),
                ToWorker::AttachGuest { resource, runs } => self.attach_guest(resource, &runs, fds),
                ToWorker::Detach { resource, ticket } => {
                    self.of_guest.remove(&resource);
                    self.context.detach_resource(resource);
                    self.answer(ticket);
                }
                ToWorker::Returned {
                    serial,
                    is_given_away,
                } => self.lent.returned(serial, is_given_away),
                ToWorker::GiveBack { ticket } => {
                    for resource in self.of_guest.drain() {
                        self.context.detach_resource(resource);
                    }
                    self.answer(ticket);
                }
                ToWorker::End => return Ok(()),
                ToWorker::Configure(_) => return Err(Failure::Order("Configure comes once")),
                ToWorker::Begin { .. } => return Err(Failure::Order("Begin comes once")),
            }
        }
    }

    /// Guest memory is given back, as this call asked.
    fn answer(&self, ticket: u32) {
        if ticket != 0 {
            self.line.tell(&FromWorker::Detached { ticket }, &[]);
        }
    }

    /// Attaches memory that another worker made. Its guest may own it, so it may be wrong.
    fn attach(&mut self, resource: u32, memory: &Piece, fds: Vec<OwnedFd>) {
        self.of_guest.remove(&resource);
        // The decoder has checked that there is one.
        for fd in fds {
            let fd = Arc::new(fd);
            match SharedMemory::from_untrusted(fd, memory.offset, memory.size, Box::new(())) {
                Ok(mapped) => {
                    let blob = Blob {
                        memory: Arc::new(mapped),
                        caching: memory.caching,
                    };
                    self.context.attach_resource(resource, &blob);
                }
                Err(error) => refuse(resource, &error),
            }
        }
    }

    fn attach_guest(&mut self, resource: u32, runs: &[Run], fds: Vec<OwnedFd>) {
        let files: Vec<Arc<File>> = fds.into_iter().map(|fd| Arc::new(fd.into())).collect();
        let pages = runs.iter().filter_map(|run| {
            Some(GuestPages {
                // The decoder has checked that there is one.
                file: Arc::clone(files.get(run.file as usize)?),
                offset: run.offset,
                size: run.size,
            })
        });
        let pages: Vec<GuestPages> = pages.collect();
        match self.context.attach_guest_memory(resource, &pages) {
            Ok(()) => {
                self.of_guest.insert(resource);
            }
            Err(error) => refuse(resource, &error),
        }
    }
}

/// Logs that the context does not get a resource. Commands that name it end the context.
fn refuse(resource: u32, error: &hesper_venus::Error) {
    REFUSED.warn(format_args!(
        "resource {resource} cannot be attached: {error}"
    ));
}
