//! The terminal while a command that shows changes has it: another screen, no cursor, keys without Enter. Put back when dropped.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{self, Read as _, Write as _};
use tokio::sync::mpsc;

/// Assumed where the terminal does not tell.
const SIZE: (usize, usize) = (80, 24);

/// A terminal in use.
pub(super) struct Terminal {
    before: Option<Termios>,
    keys: mpsc::UnboundedReceiver<u8>,
}

impl Terminal {
    /// Takes the terminal of standard input and output.
    pub(super) fn take() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(mut modes) = before.clone() {
            modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
        }
        write("\x1b[?1049h\x1b[?25l");
        Self { before, keys: keys() }
    }

    /// Columns and rows now.
    pub(super) fn size() -> (usize, usize) {
        let size =
            tcgetwinsize(io::stdout()).map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        size.ok().filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or(SIZE)
    }

    /// Shows lines in place of the last ones, without flicker.
    pub(super) fn show(lines: &[String]) {
        let mut text = String::from("\x1b[H");
        for line in lines {
            text += line;
            text += "\x1b[K\r\n";
        }
        text += "\x1b[J";
        write(&text);
    }

    /// The next key; waits for ever once standard input has ended.
    pub(super) async fn key(&mut self) -> u8 {
        match self.keys.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        write("\x1b[?25h\x1b[?1049l");
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// A thread that reads keys; it ends with the process.
fn keys() -> mpsc::UnboundedReceiver<u8> {
    let (sender, keys) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for key in io::BufReader::new(io::stdin()).bytes().map_while(Result::ok) {
            if sender.send(key).is_err() {
                return;
            }
        }
    });
    keys
}

fn write(text: &str) {
    let mut out = io::stdout();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}
