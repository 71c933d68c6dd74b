//! Orders over standard input, one a line: what a test makes a camera do.
//!
//! Each is answered with `done ORDER`, or `refused ORDER: reason`. The end of the input changes nothing.

use std::io::BufRead;
use std::path::PathBuf;

use crate::server::Server;

/// What can be ordered, as it is written.
pub(crate) const ORDERS: &str = "\
  clock SECONDS     the camera's clock is so much from what it was at first, while pictures go on
  freeze on|off     time stamps stand still
  loss PER-MILLE    so many of a thousand packets are lost
  garbage on|off    what packets carry is noise
  mute on|off       connections stand and nothing comes
  end               the stream ends for those who play it
  drop              connections are closed
  password WORD     the password is another from now on
  play NAME=FILE    those who play NAME go on with another clip of the same codec
  offer NAME=FILE   those who come to NAME get another clip, of any codec";

/// Serves orders until the input ends.
pub(crate) fn run(server: &Server, input: impl BufRead) {
    for order in input.lines().map_while(Result::ok) {
        match obey(server, &order) {
            Ok(()) => println!("done {order}"),
            Err(reason) => println!("refused {order}: {reason}"),
        }
    }
}

fn obey(server: &Server, order: &str) -> Result<(), String> {
    let (word, rest) = order.split_once(' ').unwrap_or((order, ""));
    match word {
        "clock" => server.set_clock(rest.parse().map_err(|_| "seconds are a whole number")?),
        "freeze" => server.freeze(switch(rest)?),
        "loss" => server.lose(rest.parse().map_err(|_| "per mille are a whole number")?),
        "garbage" => server.garble(switch(rest)?),
        "mute" => server.mute(switch(rest)?),
        "end" => server.end(),
        "drop" => server.drop_clients(),
        "password" => server.change_password(rest)?,
        "play" => mount(rest).and_then(|(name, file)| server.play(&name, &file))?,
        "offer" => mount(rest).and_then(|(name, file)| server.offer(&name, &file))?,
        _ => return Err("unknown".into()),
    }
    Ok(())
}

/// Splits `NAME=FILE`.
pub(crate) fn mount(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or(format!("`{text}` is not NAME=FILE"))?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("say on or off".into()),
    }
}
