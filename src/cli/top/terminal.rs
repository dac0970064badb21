//! The terminal while it is ours.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::draw::draw;
use super::picture::Picture;

const HELP: &str = "q quits";
/// Signals that end us, after the terminal is as it was.
const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// What somebody at the terminal wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Quit,
    /// A signal came.
    End(i32),
    /// It is drawn anew: the size has changed.
    Redraw,
}

/// Gives the terminal back when it is dropped; ratatui does when something panics.
pub struct Screen {
    terminal: DefaultTerminal,
    signal: Arc<AtomicUsize>,
}

impl Screen {
    pub fn open() -> io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for ending in ENDING {
            signal_hook::flag::register_usize(ending, signal.clone(), ending as usize)?;
        }
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
        Ok(Self { terminal, signal })
    }

    pub fn draw(&mut self, picture: &Picture) -> io::Result<()> {
        self.terminal.draw(|frame| draw(picture, Some(HELP), frame.area(), frame.buffer_mut())).map(|_| ())
    }

    /// What was wished since the last time, if anything. It waits for nothing.
    pub fn wish(&self) -> io::Result<Option<Wish>> {
        let mut wish = None;
        if let signal @ 1.. = self.signal.load(Ordering::Relaxed) {
            return Ok(Some(Wish::End(signal as i32)));
        }
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) if quits(&key) => return Ok(Some(Wish::Quit)),
                Event::Resize(..) => wish = Some(Wish::Redraw),
                _ => {}
            }
        }
        Ok(wish)
    }
}

fn quits(key: &KeyEvent) -> bool {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let quits = match key.code {
        KeyCode::Char('c' | 'd') => is_control,
        KeyCode::Char('q' | 'Q') => !is_control,
        KeyCode::Esc => true,
        _ => false,
    };
    quits && key.kind != KeyEventKind::Release
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal is gone nobody sees what it is like.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_and_ctrl_c_quit() {
        let key = |code, modifiers| quits(&KeyEvent::new(code, modifiers));
        for (code, modifiers) in [
            (KeyCode::Char('q'), KeyModifiers::NONE),
            (KeyCode::Char('Q'), KeyModifiers::SHIFT),
            (KeyCode::Char('c'), KeyModifiers::CONTROL),
            (KeyCode::Esc, KeyModifiers::NONE),
        ] {
            assert!(key(code, modifiers), "{code:?}");
        }
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE) && !key(KeyCode::Char('x'), KeyModifiers::CONTROL));
    }
}
