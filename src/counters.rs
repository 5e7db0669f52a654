//! Counters on SIGUSR1: one JSON object on one line of standard error.

use std::thread;

use hesper_display::{Frames, LATENCY_CLASSES};
use serde_json::{Value, json};
use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;

/// The counters of a renderer (a JSON object) and of the windows' frames, as one object.
pub(crate) fn object(renderer: Option<&str>, windows: &[Frames]) -> Value {
    let renderer = renderer.and_then(|text| serde_json::from_str(text).ok());
    let mut all: Value = renderer.unwrap_or_else(|| json!({}));
    if let Some(all) = all.as_object_mut() {
        let windows = windows.iter().map(frames).collect();
        all.insert("windows".to_owned(), Value::Array(windows));
    }
    all
}

fn frames(frames: &Frames) -> Value {
    let class = |class: usize| match Frames::latency_below_us(class) {
        Some(us) => format!("below_{us}_us"),
        None => "longer".to_owned(),
    };
    let latency = (0..LATENCY_CLASSES).map(class).zip(frames.latency);
    let latency: serde_json::Map<String, Value> =
        latency.map(|(name, count)| (name, count.into())).collect();
    json!({
        "flushes": frames.flushes,
        "unseen_flushes": frames.unseen,
        "presented_frames": frames.presented,
        "flush_to_present": latency,
    })
}

/// From now on SIGUSR1 prints what `counters` gives.
pub(crate) fn dump_on_signal(counters: impl Fn() -> String + Send + 'static) {
    let dump = |mut signals: Signals| {
        let wait = move || {
            for _ in &mut signals {
                eprintln!("{}", counters());
            }
        };
        thread::Builder::new()
            .name("counters".to_owned())
            .spawn(wait)
            .map(|_| ())
    };
    // Watching is a convenience: rendering goes on without it.
    if let Err(error) = Signals::new([SIGUSR1]).and_then(dump) {
        log::warn!("SIGUSR1 will not print the counters: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_stand_beside_the_renderers_counters() {
        let mut seen = Frames {
            flushes: 7,
            unseen: 2,
            presented: 5,
            ..Frames::default()
        };
        seen.latency[1] = 4;
        let all = object(Some(r#"{"contexts":3}"#), &[seen]);
        assert_eq!(all["contexts"], 3);
        let window = &all["windows"][0];
        assert_eq!(
            (&window["flushes"], &window["unseen_flushes"]),
            (&7.into(), &2.into())
        );
        assert_eq!(window["flush_to_present"]["below_250_us"], 4);
        assert_eq!(window["flush_to_present"]["longer"], 0);
        assert_eq!(object(None, &[]), json!({"windows": []}));
    }
}
