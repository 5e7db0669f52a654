//! What a window must do: one function for each scenario.

mod close_dialog;
mod closing;
mod cost;
mod device_loss;
mod failures;
mod osd;
mod pictures;
mod plugging;
mod pointer;
mod recording;
mod resizing;
mod visibility;
mod window_positions;

use std::thread;
use std::time::{Duration, Instant};

use hesper_display::{DisplayOptions, PixelFormat, Renderer};

use self::closing::{Way, hide_and_cancel, quitting};
use self::cost::{frames_allocate_nothing, idle};
use self::device_loss::{device_lost, surface_lost};
use self::failures::{no_driver, no_server, panicking};
use self::osd::{key_screenshot, messages, overlay};
use self::pictures::{
    bars, damage_only, every_format, flips, imports, screen, shrink, two_windows, whole_numbers,
};
use self::plugging::{plugged_back, unplugged};
use self::recording::no_torn_frame;
use self::resizing::{fifty_sizes, fixed, full_screen, resize, scale, scale_factor};
use self::visibility::{covered, minimised};
use crate::harness::{Canvas, Color, EVENT, Scenario, Shot, TestDisplay};

/// All scenarios. Some run twice, with different presenters.
pub(crate) const ALL: &[Scenario] = &[
    any("vulkan_shows_every_format_pixel_for_pixel", || {
        every_format(Renderer::Vulkan)
    }),
    any("cpu_shows_every_format_pixel_for_pixel", || {
        every_format(Renderer::Cpu)
    }),
    any("vulkan_imports_the_guests_memory", imports),
    any("vulkan_copies_damage_only", || {
        damage_only(Renderer::Vulkan)
    }),
    any("cpu_copies_damage_only", || damage_only(Renderer::Cpu)),
    any("vulkan_scales_between_black_bars", || {
        bars(Renderer::Vulkan)
    }),
    any("cpu_scales_between_black_bars", || bars(Renderer::Cpu)),
    any("shrink_leaves_small_pictures_alone", shrink),
    any("vulkan_scales_by_whole_numbers", || {
        whole_numbers(Renderer::Vulkan)
    }),
    any("cpu_scales_by_whole_numbers", || {
        whole_numbers(Renderer::Cpu)
    }),
    any("flips_between_buffers_show_the_last", flips),
    any("two_scanouts_have_two_windows", two_windows),
    any("vulkan_says_messages_and_notices", || {
        messages(Renderer::Vulkan)
    }),
    any("cpu_says_messages_and_notices", || messages(Renderer::Cpu)),
    any("vulkan_records_no_torn_frame", || {
        no_torn_frame(Renderer::Vulkan, true)
    }),
    any("without_vsync_no_frame_is_torn_either", || {
        no_torn_frame(Renderer::Vulkan, false)
    }),
    any("cpu_records_no_torn_frame", || {
        no_torn_frame(Renderer::Cpu, true)
    }),
    x11("a_key_shows_how_frames_do", || overlay(Renderer::Vulkan)),
    x11("a_key_shows_how_frames_do_on_the_cpu", || {
        overlay(Renderer::Cpu)
    }),
    x11("a_key_saves_a_screenshot", key_screenshot),
    x11(
        "a_minimised_window_answers_at_once_and_catches_up",
        minimised,
    ),
    any("an_unplugged_monitor_is_plugged_back", plugged_back),
    any("hidden_windows_come_back", closing::hidden_and_shown),
    any("a_presenter_that_panics_is_replaced", panicking),
    any("an_idle_window_costs_no_cpu", idle),
    any(
        "without_a_driver_the_cpu_draws_or_the_error_says_why",
        no_driver,
    ),
    any(
        "without_a_display_server_the_error_names_the_remedy",
        no_server,
    ),
    x11("vulkan_screen_equals_screenshot", || {
        screen(Renderer::Vulkan)
    }),
    x11("cpu_screen_equals_screenshot", || screen(Renderer::Cpu)),
    // On Wayland the client library allocates when it asks for the next frame.
    x11("vulkan_frames_allocate_nothing", frames_allocate_nothing),
    x11("a_resized_window_tells_the_guest_once", resize),
    x11(
        "fifty_random_sizes_end_with_the_last_and_leak_nothing",
        || fifty_sizes(Renderer::Vulkan),
    ),
    x11("the_cpu_follows_fifty_random_sizes_too", || {
        fifty_sizes(Renderer::Cpu)
    }),
    x11("a_scaled_window_leaves_the_guest_alone", scale),
    x11("a_fixed_window_follows_the_guest", fixed),
    x11("a_key_makes_the_window_full_screen_and_back", full_screen),
    x11("a_new_scale_factor_resizes_window_and_guest", scale_factor),
    x11(
        "the_close_button_ends_the_display",
        closing::ends_the_display,
    ),
    x11("a_closed_window_asks_and_keys_answer", || {
        hide_and_cancel(Way::Keys(&["h"]), Way::Keys(&["Escape"]));
    }),
    x11("a_closed_window_asks_and_enter_answers", || {
        hide_and_cancel(Way::Keys(&["Return"]), Way::Keys(&["Up", "Return"]));
    }),
    x11("a_closed_window_asks_and_clicks_answer", || {
        hide_and_cancel(Way::Click('H'), Way::Click('E'));
    }),
    x11("a_key_answers_that_the_display_ends", || {
        quitting(Way::Keys(&["alt+q", "x", "q"]));
    }),
    x11("tab_and_enter_answer_that_the_display_ends", || {
        quitting(Way::Keys(&["Tab", "Return"]));
    }),
    x11("a_click_answers_that_the_display_ends", || {
        quitting(Way::Click('Q'));
    }),
    x11(
        "closing_ends_at_once_where_that_is_chosen",
        closing::quits_at_once,
    ),
    x11(
        "closing_hides_where_that_is_chosen_and_the_guest_goes_on",
        closing::hiding,
    ),
    x11(
        "the_close_goes_through_when_the_guest_is_gone",
        closing::guest_gone,
    ),
    x11(
        "nothing_is_held_in_the_guest_while_the_window_asks",
        closing::releases_all,
    ),
    x11("two_windows_are_hidden_together", closing::two_windows),
    x11("the_question_is_legible_on_vulkan", || {
        close_dialog::legible(Renderer::Vulkan)
    }),
    x11("the_question_is_legible_on_the_cpu", || {
        close_dialog::legible(Renderer::Cpu)
    }),
    x11(
        "closing_a_second_window_unplugs_it_and_it_comes_back",
        unplugged,
    ),
    any(
        "a_lost_device_is_replaced_and_then_the_cpu_draws",
        device_lost,
    ),
    any("a_lost_surface_is_made_anew", surface_lost),
    x11(
        "windows_are_where_they_were_if_that_is_on_a_monitor",
        window_positions::restored,
    ),
    x11("the_pointer_is_the_guests_cursor_while_it_is_there", || {
        pointer::guests_cursor(Renderer::Vulkan)
    }),
    x11(
        "the_pointer_is_the_guests_cursor_where_the_cpu_draws",
        || pointer::guests_cursor(Renderer::Cpu),
    ),
    x11(
        "the_pointers_place_is_one_on_the_guests_desktop",
        pointer::desktop,
    ),
    x11("a_covered_window_answers_at_once_and_catches_up", covered),
];

const fn any(name: &'static str, run: fn()) -> Scenario {
    Scenario {
        name,
        x11: false,
        run,
    }
}

const fn x11(name: &'static str, run: fn()) -> Scenario {
    Scenario {
        name,
        x11: true,
        run,
    }
}

fn options(renderer: Renderer, size: (u32, u32)) -> DisplayOptions {
    DisplayOptions {
        renderer,
        size,
        ..DisplayOptions::default()
    }
}

/// A colour for each position. Neighbours differ.
fn gradient(x: u32, y: u32) -> Color {
    [(x * 7) as u8, (y * 5) as u8, (x * 3 + y * 11) as u8]
}

/// A picture without white.
fn dark(x: u32, y: u32) -> Color {
    gradient(x, y).map(|channel| channel / 2)
}

/// Makes a scanout show a picture.
fn show(
    display: &TestDisplay,
    scanout: usize,
    size: (u32, u32),
    color: fn(u32, u32) -> Color,
) -> Canvas {
    let canvas = Canvas::new(size, PixelFormat::B8G8R8X8, true);
    canvas.draw(canvas.whole(), color);
    let picture = canvas.picture();
    display.handle.set_scanout(scanout, Some(picture)).unwrap();
    display.flush(scanout, canvas.whole());
    canvas
}

/// Takes screenshots until the window has this size. The window follows its display server, which
/// may take a moment.
fn shot_of_size(display: &TestDisplay, scanout: usize, size: (u32, u32)) -> Shot {
    let deadline = Instant::now() + EVENT;
    loop {
        let shot = display.screenshot(scanout);
        if (shot.width, shot.height) == size {
            return shot;
        }
        assert!(
            Instant::now() < deadline,
            "still {}x{}",
            shot.width,
            shot.height
        );
        thread::sleep(Duration::from_millis(10));
    }
}
