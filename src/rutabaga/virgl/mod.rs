//! virgl: OpenGL of the guest by virglrenderer, through `rutabaga_gfx`.
//!
//! A process can have one virglrenderer, and it belongs to the thread that starts it. So one thread
//! has the library ([`worker`]), and everything else is a message to that thread ([`mailbox`]): the
//! calls of contexts ([`context`]) and of 3D resources ([`resources`]), in the order of the guest's
//! commands. When the library stalls, it delays all virgl contexts and nothing else. Only a device
//! reset waits for the thread, and only for a bounded time.
//!
//! How far the library is trusted:
//!
//! - Commands are copied out of guest memory before the library sees them. If it reports a command
//!   as broken, that context is lost.
//! - The library has pointers to the guest's pages. It reads and writes them in the middle of
//!   command streams, so there is no moment at which a copy could be made. It only transfers
//!   pixels, vertices and query results. The pages stay mapped while the library has them. The
//!   guest is told that it may reuse them only after the library has detached them.
//! - The library is C code that parses the guest's commands in this process: a vulnerability in it
//!   is a vulnerability in Hesper.

mod context;
mod mailbox;
mod resources;
mod worker;

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hesper_system::sync::Lock;
use hesper_vhost::renderer::{
    CapsetInfo, Completions, Context, ContextId, NewContext, Renderer, RendererError,
};
use hesper_vhost::resource3d::Resources3d;

use self::context::VirglContext;
use self::mailbox::{Mailbox, Message};
use self::resources::VirglResources;
use self::worker::Capset;
use super::Unavailable;
use super::life::{Kind, Life};

static KIND: Kind = Kind {
    name: "virgl",
    overflow: "more than 64 MiB wait for virglrenderer, which is busy",
};

/// The largest number of contexts. A guest program has one or two.
const CONTEXTS: usize = 256;
/// How long the end of the process waits for the library.
const END: Duration = Duration::from_secs(2);

/// The device's renderer for virgl contexts.
pub(super) struct Virgl {
    infos: Vec<CapsetInfo>,
    capsets: Vec<Capset>,
    mailbox: Arc<Mailbox>,
    /// Each context holds a clone until the library has destroyed it.
    slot: Arc<()>,
    /// Disconnected when the thread has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Virgl {
    /// Starts the library. Works once per process.
    pub(super) fn new() -> Result<Self, Unavailable> {
        let system = |source| Unavailable::Virgl(format!("cannot start its thread: {source}"));
        let mailbox = Mailbox::new().map_err(|source| system(source.into()))?;
        let (startup, started) = mpsc::sync_channel(1);
        let (end, ended) = mpsc::channel::<()>();
        let for_thread = Arc::clone(&mailbox);
        thread::Builder::new()
            .name("virgl".to_owned())
            .spawn(move || {
                worker::run(&for_thread, &startup);
                drop(end);
            })
            .map_err(system)?;
        let capsets: Vec<Capset> = started
            .recv()
            .unwrap_or_else(|_| Err("rutabaga_gfx panicked".to_owned()))
            .map_err(Unavailable::Virgl)?;
        Ok(Self {
            infos: capsets.iter().map(|capset| capset.info).collect(),
            capsets,
            mailbox,
            slot: Arc::default(),
            ended: Mutex::new(ended),
        })
    }
}

impl Renderer for Virgl {
    fn capsets(&self) -> &[CapsetInfo] {
        &self.infos
    }

    fn capset(&self, id: u32, version: u32) -> Option<Vec<u8>> {
        let found = self.capsets.iter().find(|one| one.info.id == id)?;
        // The library returns the same bytes for all versions of a set.
        (version <= found.info.max_version).then(|| found.bytes.clone())
    }

    fn create_context(
        &self,
        id: ContextId,
        about: &NewContext<'_>,
        completions: Arc<dyn Completions>,
    ) -> Result<Arc<dyn Context>, RendererError> {
        let slot = Arc::clone(&self.slot);
        // One is the renderer's own and one is the new context's.
        if Arc::strong_count(&slot) > CONTEXTS + 1 {
            return Err(RendererError::OutOfMemory(format!(
                "there are {CONTEXTS} virgl contexts already"
            )));
        }
        let life = Arc::new(Life::new(&KIND, id, about.name, completions, slot));
        let mailbox = Arc::clone(&self.mailbox);
        Ok(Arc::new(VirglContext::start(life, about.capset, mailbox)))
    }

    fn resources_3d(&self) -> Option<Arc<dyn Resources3d>> {
        let mailbox = Arc::clone(&self.mailbox);
        Some(Arc::new(VirglResources::new(mailbox)))
    }
}

impl Drop for Virgl {
    fn drop(&mut self) {
        self.mailbox.post(Message::Stop);
        let ended = self.ended.locked();
        if let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(END) {
            log::warn!("virglrenderer did not end within {END:?}; Hesper ends without it");
        }
    }
}
