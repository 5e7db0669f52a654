//! [`Rings`]: the status words of a worker's rings. A guest that waits for a ring learns from this
//! word that the worker is gone.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use hesper_system::budget::Charge;
use hesper_venus::SharedMemory;
use hesper_venus::memory::page_size;

/// `VK_RING_STATUS_FATAL_BIT_MESA`: the guest must give up.
const FATAL: u32 = 2;

/// The page that holds the status word of a ring.
#[derive(Debug)]
struct Status {
    page: SharedMemory,
    /// Where the word is in the page.
    at: usize,
}

/// The rings that a worker has reported.
#[derive(Debug, Default)]
pub(super) struct Rings {
    /// By the guest's ids. `None` when this process had no mapping left for it.
    known: HashMap<u64, Option<Status>>,
}

impl Rings {
    /// Notes a ring with its status word at byte `status` of the file `fd`. `most` is how many
    /// there may be, `piece` what the mapping takes of the budget, if there is enough.
    ///
    /// # Errors
    /// Which rule the worker has broken.
    pub(super) fn insert(
        &mut self,
        ring: u64,
        status: u64,
        fd: OwnedFd,
        most: usize,
        piece: Option<Charge>,
    ) -> Result<(), String> {
        if self.known.len() >= most {
            return Err(format!("more than {most} rings"));
        }
        if self.known.contains_key(&ring) {
            return Err(format!("a second ring {ring:#x}"));
        }
        if !status.is_multiple_of(4) {
            return Err(format!("a ring's status at byte {status}, which is odd"));
        }
        let at = status % page_size();
        let page = match piece {
            Some(piece) => super::untrusted::map(fd, status - at, page_size(), Box::new(piece))?,
            None => None,
        };
        if page.is_none() {
            log::debug!(
                "ring {ring:#x} will not be told when its process ends: no mapping is left"
            );
        }
        // A page is small.
        let status = page.map(|page| Status {
            page,
            at: at as usize,
        });
        self.known.insert(ring, status);
        Ok(())
    }

    /// Forgets a ring.
    ///
    /// # Errors
    /// There is no such ring.
    pub(super) fn remove(&mut self, ring: u64) -> Result<(), String> {
        match self.known.remove(&ring) {
            Some(_) => Ok(()),
            None => Err(format!("the end of a ring {ring:#x} that there is not")),
        }
    }

    /// Tells all guests that wait for these rings to give up, and forgets the rings.
    pub(super) fn fail(&mut self) {
        for status in self.known.drain().filter_map(|(_, status)| status) {
            if let Some(word) = status.page.word(status.at) {
                word.fetch_or(FATAL, Ordering::SeqCst);
            }
        }
    }
}
