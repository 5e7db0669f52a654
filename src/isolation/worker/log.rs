//! Sends log lines to the main process, which has the log and limits what a worker writes there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{Level, Log, Metadata, Record};

use super::super::message::FromWorker;
use super::line::Line;

/// A logger that sends what `RUST_LOG` admits: `info` and above without it.
struct Forwarder {
    /// Only asked, writes nothing.
    filter: env_logger::Logger,
    line: Arc<Line>,
    is_loaded: Arc<AtomicBool>,
}

/// Tells the logger that the driver is loaded.
pub(super) struct Loading(Arc<AtomicBool>);

impl Loading {
    /// From now on, lines keep their level.
    ///
    /// What a worker says while it loads its driver, the main process has said when it loaded the
    /// same one, and there is a worker for each context. So these lines are for debugging only,
    /// except errors.
    pub(super) fn end(self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends everything that is logged from now on.
pub(super) fn forward(line: &Arc<Line>) -> Loading {
    let is_loaded: Arc<AtomicBool> = Arc::default();
    let level = env_logger::Env::default().default_filter_or("info");
    let forwarder = Forwarder {
        filter: env_logger::Builder::from_env(level).build(),
        line: Arc::clone(line),
        is_loaded: Arc::clone(&is_loaded),
    };
    let most = forwarder.filter.filter();
    // An error means that there is a logger. The worker is not told to use another one then.
    if log::set_boxed_logger(Box::new(forwarder)).is_ok() {
        log::set_max_level(most);
    }
    Loading(is_loaded)
}

impl Log for Forwarder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let level = match self.is_loaded.load(Ordering::Relaxed) {
            true => record.level(),
            false if record.level() == Level::Error => Level::Error,
            false => record.level().max(Level::Debug),
        };
        let mut sent = Record::builder();
        sent.target(record.target())
            .level(level)
            .args(*record.args());
        if self.filter.matches(&sent.build()) {
            let message = FromWorker::Log {
                level: level as u8,
                line: format!("{}\0{}", record.target(), record.args()),
            };
            self.line.tell(&message, &[]);
        }
    }

    fn flush(&self) {}
}
