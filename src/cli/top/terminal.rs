//! The terminal while it is ours.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, disable_raw_mode, enable_raw_mode, is_raw_mode_enabled,
};
use ratatui::{DefaultTerminal, Terminal};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};

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
    /// Ctrl-Z.
    Suspend,
    /// Somebody has stopped us, and let us go on.
    Resume,
    /// It is drawn anew: the size has changed.
    Redraw,
}

/// Gives the terminal back when it is dropped; ratatui does when something panics.
pub struct Screen {
    /// Left alone at the end: one that is dropped where the terminal is gone complains to that terminal, and panics.
    terminal: ManuallyDrop<DefaultTerminal>,
    signal: Arc<AtomicUsize>,
    is_resumed: Arc<AtomicBool>,
}

impl Screen {
    pub fn open() -> io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for ending in ENDING {
            signal_hook::flag::register_usize(ending, signal.clone(), ending as usize)?;
        }
        let is_resumed = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGCONT, is_resumed.clone())?;
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
        Ok(Self { terminal: ManuallyDrop::new(terminal), signal, is_resumed })
    }

    /// Stops us until a shell lets us go on, with the terminal as it was meanwhile. Where no shell could the
    /// kernel does not stop us, as in `docker exec`.
    pub fn suspend(&mut self) -> io::Result<()> {
        self.give_back();
        raise(Signal::SIGTSTP)?;
        self.take_again()
    }

    /// Makes the terminal ours after somebody else had it.
    pub fn take_again(&mut self) -> io::Result<()> {
        self.is_resumed.store(false, Ordering::Relaxed);
        // It is only set where it is thought not to be.
        disable_raw_mode()?;
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
        // A new one knows of nothing that is drawn. `clear` would ask the terminal where its cursor is, and wait.
        self.terminal = ManuallyDrop::new(Terminal::new(CrosstermBackend::new(io::stdout()))?);
        Ok(())
    }

    fn give_back(&mut self) {
        // Where the terminal is gone nobody sees what it is like.
        let _ = self.terminal.show_cursor();
        // After a panic it is back already, and doing it twice would put the cursor over what was printed.
        if is_raw_mode_enabled().unwrap_or(true) {
            let _ = ratatui::try_restore();
        }
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
        if self.is_resumed.load(Ordering::Relaxed) {
            return Ok(Some(Wish::Resume));
        }
        loop {
            // Who reads keys reads the end of them for ever.
            if is_gone()? {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            if !event::poll(Duration::ZERO)? {
                break;
            }
            match event::read()? {
                Event::Key(key) if suspends(&key) => return Ok(Some(Wish::Suspend)),
                Event::Key(key) if quits(&key) => return Ok(Some(Wish::Quit)),
                Event::Resize(..) => wish = Some(Wish::Redraw),
                _ => {}
            }
        }
        Ok(wish)
    }
}

/// Whether the terminal was closed; that may come without a signal.
fn is_gone() -> io::Result<bool> {
    let input = io::stdin();
    let mut polled = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO)?;
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    Ok(polled[0].revents().is_some_and(|events| events.intersects(gone)))
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

fn suspends(key: &KeyEvent) -> bool {
    let is_control_z = key.code == KeyCode::Char('z') && key.modifiers.contains(KeyModifiers::CONTROL);
    is_control_z && key.kind != KeyEventKind::Release
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;

    use nix::pty::{Winsize, openpty};
    use nix::sys::termios::{LocalFlags, tcgetattr};

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

    /// Set for the child of the next test, which opens the screen and panics.
    const PANICS: &str = "UNIFIED_NATS_TEST_PANICS";

    #[test]
    fn a_panic_gives_the_terminal_back_and_can_be_read() {
        if std::env::var_os(PANICS).is_some() {
            let mut screen = Screen::open().unwrap();
            screen.draw(&Picture::default()).unwrap();
            panic!("on purpose");
        }
        let pty = openpty(&Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }, None).unwrap();
        let end = || pty.slave.try_clone().unwrap();
        let name = "cli::top::terminal::tests::a_panic_gives_the_terminal_back_and_can_be_read";
        // The command holds the terminal until it is dropped.
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(PANICS, "1")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let mut master = std::fs::File::from(pty.master.try_clone().unwrap());
        let reading = std::thread::spawn(move || {
            let (mut text, mut buffer) = (vec![], [0; 4096]);
            while let Ok(length @ 1..) = master.read(&mut buffer) {
                text.extend_from_slice(&buffer[..length]);
            }
            String::from_utf8_lossy(&text).into_owned()
        });
        assert!(!child.wait().unwrap().success());
        let modes = tcgetattr(pty.slave.as_fd()).unwrap().local_flags;
        assert!(modes.contains(LocalFlags::ICANON | LocalFlags::ECHO));
        drop((pty.slave, child, pty.master));
        let text = reading.join().unwrap();
        assert_eq!(text.matches("\u{1b}[?1049l").count(), 1, "{text:?}");
        let behind = text.split("\u{1b}[?1049l").nth(1).unwrap();
        assert!(behind.contains("on purpose") && behind.contains("\u{1b}[?25h"), "{text:?}");
    }
}
