//! `kinewatch man`: manual pages, one for each command and one for the configuration. For whoever makes a package.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, ManArgs, Outcome};

/// What the tests hold against the types; whoever reads the manual sees the same.
const REFERENCE: &str = include_str!("../../../config/kinewatch.toml");
/// Name of the manual, in the header of each page.
const MANUAL: &str = "kinewatch";

pub(super) fn run(args: &ManArgs) -> Outcome {
    std::fs::create_dir_all(&args.out).with_context(|| format!("{}: cannot be made", args.out.display()))?;
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    commands(&root, &args.out)?;
    write(&args.out.join("kinewatch.toml.5"), &configuration())
}

fn commands(command: &clap::Command, out: &Path) -> Outcome {
    let man = Man::new(command.clone()).manual(MANUAL);
    write(&out.join(man.get_filename()), &page(&man, command)?)?;
    command.get_subcommands().filter(|sub| !sub.is_hide_set()).try_for_each(|sub| commands(sub, out))
}

/// As [`Man::render`] has it, but with examples that keep their lines.
fn page(man: &Man, command: &clap::Command) -> std::io::Result<String> {
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(&mut text)?;
    }
    let mut text = String::from_utf8_lossy(&text).into_owned();
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (mut rest, mut notes) = (Roff::new(), Vec::new());
    for paragraph in after.split("\n\n").filter(|p| !p.is_empty()) {
        match paragraph.split_once(":\n") {
            Some((heading, examples)) if heading.starts_with("Example") => {
                rest.control("SH", [heading.to_uppercase().as_str()]);
                verbatim(&mut rest, examples);
            }
            _ => notes.push(paragraph),
        }
    }
    for (index, note) in notes.into_iter().enumerate() {
        if index == 0 {
            rest.control("SH", ["NOTES"])
        } else {
            rest.control("PP", [])
        };
        rest.text([roman(note)]);
    }
    if command.get_name() == "kinewatch" {
        rest.control("SH", ["SEE ALSO"]);
        rest.text([bold("kinewatch.toml"), roman("(5), "), bold("systemctl"), roman("(1)")]);
    }
    text.push_str(&rest.render());
    Ok(text)
}

fn configuration() -> String {
    let mut roff = Roff::new();
    roff.control("TH", ["kinewatch.toml", "5", "", concat!("kinewatch ", env!("CARGO_PKG_VERSION")), MANUAL]);
    roff.control("SH", ["NAME"]).text([roman("kinewatch.toml - configuration of kinewatch")]);
    roff.control("SH", ["DESCRIPTION"]).text([
        roman("TOML, read when "),
        bold("kinewatch run"),
        roman(" starts and when it is told to reload; "),
        bold("kinewatch check-config"),
        roman(" finds every mistake. This is the reference, with every key:"),
    ]);
    let reference = REFERENCE.lines().skip_while(|line| line.starts_with("#:schema") || *line == "#");
    verbatim(&mut roff, &reference.collect::<Vec<_>>().join("\n"));
    roff.control("SH", ["FILES"]);
    roff.text([roman(crate::config::DEFAULT_PATH)]);
    roff.control("SH", ["SEE ALSO"]).text([bold("kinewatch"), roman("(1)")]);
    roff.render()
}

fn verbatim(roff: &mut Roff, lines: &str) {
    roff.control("PP", []).control("nf", []);
    for line in lines.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}

fn write(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_the_configuration_have_a_page() {
        let dir = tempfile::tempdir().unwrap();
        run(&ManArgs { out: dir.path().to_owned() }).unwrap();
        let page = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let tail = page("kinewatch-events-tail.1");
        assert!(tail.contains("\n.SH EXAMPLES\n.PP\n.nf\n"), "{tail}");
        assert!(page("kinewatch.1").contains("kinewatch\\-replay(1)"));
        assert!(page("kinewatch.toml.5").contains("stall_timeout_s = "));
        let pages = std::fs::read_dir(dir.path()).unwrap().count();
        fn shown(command: &clap::Command) -> usize {
            1 + command.get_subcommands().filter(|c| !c.is_hide_set()).map(shown).sum::<usize>()
        }
        // clap adds `help` to the command line, which needs no page.
        assert_eq!(pages, shown(&Cli::command()) + 1);
    }
}
