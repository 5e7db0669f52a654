//! [`TraceFile`]: the JSON of a trace ("Trace Event Format"), which ui.perfetto.dev and
//! chrome://tracing read.
//!
//! A context is a process in it, and a [`Track`] a thread. All names come from this crate's own
//! tables, except for those of contexts, which serde_json escapes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::buffer::Recorded;
use super::{Event, Track};

/// How many events a file has at most. They take some 150 bytes each.
const MOST: usize = 1 << 20;

/// A file that is being made of what was recorded, in one process or several.
#[derive(Debug, Default)]
pub struct TraceFile {
    events: Vec<Event>,
    names: BTreeMap<u32, BTreeSet<String>>,
    lost: u64,
    began: Option<u64>,
}

impl TraceFile {
    /// How many more events it takes.
    #[must_use]
    pub fn room(&self) -> usize {
        MOST.saturating_sub(self.events.len())
    }

    /// Adds what a renderer of this process has recorded, which names the contexts itself.
    pub fn add(&mut self, recorded: Recorded) {
        let Recorded {
            mut events,
            lost,
            began,
            names,
        } = recorded;
        let left_out = events.len().saturating_sub(self.room());
        events.truncate(self.room());
        self.events.append(&mut events);
        self.lost = self
            .lost
            .saturating_add(lost)
            .saturating_add(left_out as u64);
        self.began = Some(self.began.map_or(began, |other| other.min(began)));
        for (context, name) in names {
            self.name(context, &name);
        }
    }

    /// Adds what a process has recorded that is only this context, whatever it says itself.
    pub fn add_context(&mut self, context: u32, mut recorded: Recorded) {
        for event in &mut recorded.events {
            event.context = context;
        }
        recorded.names.clear();
        self.add(recorded);
    }

    /// Names a context. The name is the guest's and untrusted. The guest may use an id again.
    pub fn name(&mut self, context: u32, name: &str) {
        self.names
            .entry(context)
            .or_default()
            .insert(name.to_owned());
    }

    /// The bytes of the file.
    #[must_use]
    pub fn to_json(mut self) -> Vec<u8> {
        // Viewers nest a span in the one before it that lasts longer.
        self.events
            .sort_by_key(|event| (event.begin, std::cmp::Reverse(event.duration)));
        let began = self.began.unwrap_or_default();
        let threads = self.threads();
        let mut all = Writer::default();
        for context in threads
            .keys()
            .map(|(context, _)| *context)
            .collect::<BTreeSet<_>>()
        {
            let names: Vec<&str> = self
                .names
                .get(&context)
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect();
            all.metadata("process_name", context, 0, &process_name(context, &names));
        }
        for ((context, track), thread) in &threads {
            all.metadata("thread_name", *context, *thread, &thread_name(*track));
        }
        for event in &self.events {
            let thread = threads.get(&(event.context, event.track));
            all.event(event, thread.copied().unwrap_or_default(), began);
        }
        all.finish(self.lost)
    }

    /// Numbers for the tracks, those of each context in their order.
    fn threads(&self) -> BTreeMap<(u32, Track), u32> {
        let tracks = self.events.iter();
        let tracks: BTreeSet<_> = tracks.map(|event| (event.context, event.track)).collect();
        tracks.into_iter().zip(1..).collect()
    }
}

fn process_name(context: u32, names: &[&str]) -> String {
    match names {
        [] => format!("context {context}"),
        names => format!("context {context} \"{}\"", names.join(", ")),
    }
}

fn thread_name(track: Track) -> String {
    match track {
        Track::Thread => "context's thread".to_owned(),
        Track::Ring(id) => format!("ring {id:#x}"),
        Track::Queue(ring) => format!("queue of ring_idx {ring}"),
        Track::Fences(ring) => format!("fences of ring_idx {ring}"),
    }
}

/// Writes the events one after the other.
#[derive(Default)]
struct Writer {
    text: String,
}

impl Writer {
    /// Begins a further event.
    fn next(&mut self) {
        self.text.push_str(match self.text.is_empty() {
            true => "{\"traceEvents\":[\n",
            false => ",\n",
        });
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to memory does not fail.
        let _ = self.text.write_fmt(text);
    }

    fn metadata(&mut self, what: &str, process: u32, thread: u32, name: &str) {
        self.next();
        let name = serde_json::Value::from(name);
        self.put(format_args!(
            r#"{{"ph":"M","name":"{what}","pid":{process},"tid":{thread},"args":{{"name":{name}}}}}"#
        ));
    }

    fn event(&mut self, event: &Event, thread: u32, began: u64) {
        let (name, look) = (event.name(), event.span.look());
        let category = look.category;
        let process = event.context;
        let begin = Microseconds(event.begin.saturating_sub(began));
        let duration = Microseconds(event.duration);
        let end = Microseconds(event.end().saturating_sub(began));
        self.next();
        self.put(format_args!(
            r#"{{"name":"{name}","cat":"{category}","pid":{process},"tid":{thread},"ts":{begin}"#
        ));
        let [fence, ring] = event.arguments;
        let id = format_args!("{process}.{ring}.{fence}").to_string();
        match look.overlaps {
            false => self.put(format_args!(r#","ph":"X","dur":{duration}"#)),
            true => self.put(format_args!(r#","ph":"b","id":"{id}""#)),
        }
        for (at, (argument, value)) in look.arguments.iter().zip(event.arguments).enumerate() {
            let before = if at == 0 { r#","args":{"# } else { "," };
            self.put(format_args!(r#"{before}"{argument}":{value}"#));
        }
        if !look.arguments.is_empty() {
            self.text.push('}');
        }
        self.text.push('}');
        if look.overlaps {
            self.next();
            self.put(format_args!(
                r#"{{"name":"{name}","cat":"{category}","pid":{process},"tid":{thread},"ts":{end},"ph":"e","id":"{id}"}}"#
            ));
        }
    }

    fn finish(mut self, lost: u64) -> Vec<u8> {
        if self.text.is_empty() {
            self.text.push_str("{\"traceEvents\":[");
        }
        self.put(format_args!(
            "\n],\"displayTimeUnit\":\"ns\",\"otherData\":{{\"lost_events\":\"{lost}\"}}}}\n"
        ));
        self.text.into_bytes()
    }
}

/// Nanoseconds, written as microseconds with a fraction.
struct Microseconds(u64);

impl std::fmt::Display for Microseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}
