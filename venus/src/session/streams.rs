//! Whole streams: copied in pieces where the guest can change them. Commands for which there is no
//! memory are refused.

use hesper_venus_protocol::runtime::{self, Meter, Reason};
use hesper_venus_protocol::{CommandId, extent, vk};

use super::{Buffers, Session, name};
use crate::command_stream::{Stream, Walked};
use crate::fatal::Fatal;

impl Session<'_> {
    /// Bytes of a stream that are copied at a time. A command's header fits.
    pub(crate) fn piece(&self) -> usize {
        self.state.budget.piece_bytes.max(8)
    }

    /// Carries out a stream in private memory.
    pub(crate) fn run_batch(
        &mut self,
        commands: &mut [u8],
        buffers: &mut Buffers,
    ) -> Result<(), Fatal> {
        self.published = 0;
        let mut from = 0;
        loop {
            let rest = commands.get_mut(from..).unwrap_or_default();
            match self.run(rest, from, &mut buffers.arena) {
                Err(Fatal::Stream(fatal)) if matches!(fatal.reason, Reason::Budget { .. }) => {
                    let begin = self.begin();
                    from = self.refuse_command(&&*commands, begin, fatal)?;
                }
                ended => return ended,
            }
        }
    }

    /// Carries out a stream that the guest can change.
    #[inline]
    pub(crate) fn run_stream(
        &mut self,
        stream: &impl Stream,
        buffers: &mut Buffers,
    ) -> Result<(), Fatal> {
        self.published = 0;
        self.run_pieces(stream, buffers)
    }

    /// Carries out a stream that the guest can change, piece by piece.
    ///
    /// Decoding shows whether a command is whole. A decoder that finds too few bytes has changed
    /// nothing but the copy. The next piece then begins with that command, which is copied and
    /// decoded again, even if the guest has changed it.
    #[inline]
    pub(super) fn run_pieces(
        &mut self,
        stream: &impl Stream,
        buffers: &mut Buffers,
    ) -> Result<(), Fatal> {
        let (piece, total) = (self.piece(), stream.len());
        let mut window = (0, piece.min(total));
        loop {
            let is_filled = buffers
                .window
                .fill(stream, window, piece, &self.state.command_memory);
            let ended = match is_filled {
                true => self.run(buffers.window.bytes(), window.0, &mut buffers.arena),
                false => Err(self.unfilled(window)),
            };
            window = match ended {
                Ok(()) if window.0 + window.1 == total => return Ok(()),
                Ok(()) => (window.0 + window.1, piece.min(total - window.0 - window.1)),
                Err(Fatal::Stream(fatal)) => {
                    buffers.settle();
                    self.next_window(stream, window, fatal)?
                }
                Err(fatal) => return Err(fatal),
            };
            buffers.window.settle();
        }
    }

    /// The error for a window that could not be filled: it holds a single large command.
    #[cold]
    fn unfilled(&mut self, (from, count): (usize, usize)) -> Fatal {
        (self.group_start, self.group_done) = (from, 0);
        Fatal::Stream(runtime::Fatal {
            reason: Reason::Budget {
                wanted: count as u64,
                budget: self.state.command_memory.limit(),
            },
            offset: from,
            command: self.cut,
        })
    }

    /// What to copy next after decoding ended with `fatal` in this window, or the error if it is a
    /// real one.
    #[cold]
    fn next_window<S: Stream>(
        &mut self,
        stream: &S,
        (from, count): (usize, usize),
        fatal: runtime::Fatal,
    ) -> Result<(usize, usize), Fatal> {
        let (piece, total, begin) = (self.piece(), stream.len(), self.begin());
        let rest = total - begin;
        let needed = match fatal.reason {
            Reason::Budget { .. } => {
                let end = self.refuse_command(&Walked(stream), begin, fatal)?;
                return Ok((end, piece.min(total - end)));
            }
            Reason::Truncated { needed, .. } if from + count < total => needed,
            _ => return Err(fatal.into()),
        };
        self.cut = fatal.command;
        // Bytes of the command that the decoder now knows of.
        let least = ((fatal.offset - begin) as u64).saturating_add(needed.saturating_add(3) & !3);
        if least > rest as u64 {
            let reason = Reason::Truncated {
                needed,
                left: total - fatal.offset,
            };
            return Err(runtime::Fatal { reason, ..fatal }.into());
        }
        let had = from + count - begin;
        if begin > from || had < piece {
            // It may still fit into a piece.
            return Ok((begin, piece.min(rest)));
        }
        // The length decides only how much is copied. If the guest changes it meanwhile, the
        // command is decoded from too few bytes again, or another command follows it. The length
        // then grows by half at least, so this ends soon.
        let length = match extent::length(&Walked(stream), begin as u64) {
            Ok(length) if length > had as u64 => length,
            _ => least.max(had as u64 + had as u64 / 2 + 4),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok((begin, length.min(rest)))
    }

    /// Refuses the command at byte `begin`, for which there is no memory. It fails with Vulkan's
    /// result for that, if it has a result and the guest asks for it. Returns where the next
    /// command begins.
    ///
    /// Other commands end the context. A guest could be told of a failed recording only by
    /// `vkEndCommandBuffer`, and Mesa does not ask for its result.
    #[cold]
    fn refuse_command(
        &mut self,
        source: &dyn extent::Source,
        begin: usize,
        fatal: runtime::Fatal,
    ) -> Result<usize, Fatal> {
        let Reason::Budget { wanted, budget } = fatal.reason else {
            return Err(fatal.into());
        };
        let command = CommandId::from_number(fatal.command).ok_or(fatal)?;
        let refusal = Fatal::CommandMemory {
            command: name(command),
            wanted,
            budget,
        };
        if !self.wants_reply || !extent::returns_result(command) {
            return Err(self.fail_here(refusal));
        }
        let length = extent::length(source, begin as u64)?;
        self.state.warn_of_memory(&refusal);
        let result = vk::Result::ERROR_OUT_OF_HOST_MEMORY;
        self.write_reply(command, |encoder| extent::refuse(command, result, encoder))?;
        let end = begin + usize::try_from(length).unwrap_or_default();
        (self.group_start, self.group_done) = (end, 0);
        if self.outer_done.is_none() {
            self.publish();
        }
        Ok(end)
    }

    /// Where the current command begins in its stream.
    fn begin(&self) -> usize {
        self.group_start + self.group_done
    }
}
