//! Counters on SIGUSR1: one JSON object on one line of standard error.

use hesper_display::{FrameStatistics, LATENCY_CLASSES};
use serde_json::{Value, json};
use signal_hook::consts::SIGUSR1;

use crate::signals;

/// The counters of a renderer (a JSON object) and of the windows' frames, as one object.
pub(crate) fn object(renderer: Option<&str>, windows: &[FrameStatistics]) -> Value {
    let renderer = renderer.and_then(|text| serde_json::from_str(text).ok());
    let mut all: Value = renderer.unwrap_or_else(|| json!({}));
    if let Some(all) = all.as_object_mut() {
        let windows = windows.iter().map(frames).collect();
        all.insert("windows".to_owned(), Value::Array(windows));
    }
    all
}

fn frames(frames: &FrameStatistics) -> Value {
    // From the shortest times to the longest, which have no limit.
    let classes = (0..LATENCY_CLASSES).map(FrameStatistics::latency_below_us);
    let classes = classes.zip(frames.latency);
    let latency: Vec<Value> = classes
        .map(|(below_us, count)| json!({"below_us": below_us, "frames": count}))
        .collect();
    json!({
        "flushes": frames.flushes,
        "unseen_flushes": frames.unseen,
        "presented_frames": frames.presented,
        "flush_to_present": latency,
    })
}

/// From now on SIGUSR1 prints what `counters` gives.
pub(crate) fn dump_on_signal(counters: impl Fn() -> String + Send + 'static) {
    // Watching is a convenience: rendering goes on without it.
    let dump = move |_| eprintln!("{}", counters());
    if let Err(error) = signals::watch("counters", &[SIGUSR1], dump) {
        log::warn!("SIGUSR1 will not print the counters: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_stand_beside_the_renderers_counters() {
        let mut seen = FrameStatistics {
            flushes: 7,
            unseen: 2,
            presented: 5,
            ..FrameStatistics::default()
        };
        seen.latency[1] = 4;
        let all = object(Some(r#"{"contexts":3}"#), &[seen]);
        assert_eq!(all["contexts"], 3);
        let window = &all["windows"][0];
        assert_eq!(
            (&window["flushes"], &window["unseen_flushes"]),
            (&7.into(), &2.into())
        );
        let latency = window["flush_to_present"].as_array().unwrap();
        assert_eq!(latency[1], json!({"below_us": 250, "frames": 4}));
        let mut limits = latency.iter().map(|class| class["below_us"].as_u64());
        assert!(limits.clone().take(LATENCY_CLASSES - 1).is_sorted());
        assert_eq!(limits.next_back(), Some(None));
        assert_eq!(object(None, &[]), json!({"windows": []}));
    }
}
