//! Which machine this is, as far as pipelines depend on it: the kind of decoder, and on a Jetson the release and chip.
//!
//! [`detect`] reads two small files below a root, so that machines we do not have can be laid out in a folder; what it
//! reads is parsed by pure functions. It never asks GStreamer: which elements are really there is for
//! [`crate::Elements::probe`].

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Family of elements in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Platform {
    /// Decoding on the CPU.
    Software,
    /// VA-API (Intel, AMD): decodes in hardware, scales the wanted frames on the CPU.
    VaApi,
    /// NVDEC of a desktop GPU: as VA-API.
    NvCodec,
    /// Jetson, L4T r35, GStreamer 1.16.
    Jetpack5,
    /// Jetson, L4T r36, GStreamer 1.20.
    Jetpack6,
    /// Jetson, L4T r38 and later, GStreamer 1.24.
    Jetpack7,
}

impl Platform {
    /// Whether decoded frames live in NVMM memory and `nvvidconv` scales them.
    #[must_use]
    pub fn is_jetson(self) -> bool {
        matches!(self, Self::Jetpack5 | Self::Jetpack6 | Self::Jetpack7)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Software => "software",
            Self::VaApi => "VA-API",
            Self::NvCodec => "NVIDIA desktop",
            Self::Jetpack5 => "JetPack 5",
            Self::Jetpack6 => "JetPack 6",
            Self::Jetpack7 => "JetPack 7",
        })
    }
}

/// A Jetson.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Jetson {
    /// Of L4T; `None` where its file is missing or in another form.
    pub release: Option<Release>,
    /// What the video blocks depend on.
    pub chip: Chip,
}

/// Release of L4T, such as R36.4.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    /// 36 of R36.4.3.
    pub major: u32,
    /// 4 of R36.4.3.
    pub minor: u32,
    /// 3 of R36.4.3.
    pub patch: u32,
}

/// Generation of the chip, as far as its video blocks differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chip {
    /// Orin and those before it: `nvv4l2decoder` decodes JPEG.
    Orin,
    /// Thor: its `nvv4l2decoder` decodes no JPEG and has fewer properties.
    Thor,
}

impl Jetson {
    /// The generation of JetPack. Without a release, that which the chip came with.
    #[must_use]
    pub fn platform(self) -> Platform {
        match (self.release.map(|release| release.major), self.chip) {
            (Some(..=35), _) => Platform::Jetpack5,
            (Some(36..=37), _) | (None, Chip::Orin) => Platform::Jetpack6,
            (Some(38..), _) | (None, Chip::Thor) => Platform::Jetpack7,
        }
    }
}

impl Release {
    /// From the text of `/etc/nv_tegra_release`: `# R36 (release), REVISION: 4.3, GCID: …`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
        let major = number(text.trim_start().strip_prefix("# R")?)?;
        let revision = text.split_once("REVISION:").map_or("", |(_, rest)| rest.trim_start());
        let mut parts = revision.split('.').map(number);
        let mut part = || parts.next().flatten().unwrap_or(0);
        Some(Self { major, minor: part(), patch: part() })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "R{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The Jetson whose file system begins at `root` (`/` for this machine); `None` for every other machine.
#[must_use]
pub fn detect(root: &Path) -> Option<Jetson> {
    let release = Release::parse(&read(root, "etc/nv_tegra_release"));
    let model = read(root, "proc/device-tree/model");
    if release.is_none() && !model.contains("Jetson") {
        return None;
    }
    // The chip by its own name too: boards of other makers have models of their own.
    let thor = model.contains("Thor") || read(root, "proc/device-tree/compatible").contains("nvidia,tegra264");
    Some(Jetson { release, chip: if thor { Chip::Thor } else { Chip::Orin } })
}

/// What in the environment keeps NVIDIA's elements from working, and what to do: they connect to the display that is named
/// there, though nothing is to be seen, and fail where it is another machine's (`ssh -X`) or gone.
#[must_use]
pub fn display_trap(platform: Platform, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let set = ["DISPLAY", "WAYLAND_DISPLAY"].into_iter().filter(|name| variable(name).is_some_and(|v| !v.is_empty()));
    let set: Vec<&str> = set.filter(|_| platform.is_jetson()).collect();
    (!set.is_empty()).then(|| {
        let names = set.join(" and ");
        format!(
            "{names} is set: decoders fail with `nvbufsurftransform: Could not get EGL display connection` where that \
             display is not there; unset it (the unit kinewatch.service does)"
        )
    })
}

/// At most 4 KiB of a file; nothing where it cannot be read.
fn read(root: &Path, path: &str) -> String {
    let mut bytes = Vec::new();
    let file = File::open(root.join(path));
    let _unread = file.map(|file| file.take(4096).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(text: &str) -> Option<String> {
        Release::parse(text).map(|release| release.to_string())
    }

    #[test]
    fn the_release_file_is_read() {
        let line = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n";
        assert_eq!(release(line).as_deref(), Some("R36.4.3"));
        assert_eq!(release("# R35 (release), REVISION: 6.1, GCID: 1").as_deref(), Some("R35.6.1"));
        assert_eq!(release("# R38 (release), REVISION: 2, GCID: 1").as_deref(), Some("R38.2.0"));
        assert_eq!(release("# R39").as_deref(), Some("R39.0.0"));
        assert_eq!(release("Ubuntu 22.04"), None);
        assert_eq!(release(""), None);
    }

    #[test]
    fn a_display_is_a_trap_on_a_jetson_alone() {
        let forwarded = |name: &str| (name == "DISPLAY").then(|| "localhost:10.0".to_owned());
        let told = display_trap(Platform::Jetpack6, &forwarded).unwrap();
        assert!(told.starts_with("DISPLAY is set") && told.contains("EGL"), "{told}");
        assert_eq!(display_trap(Platform::Software, &forwarded), None);
        assert_eq!(display_trap(Platform::Jetpack6, &|_| Some(String::new())), None);
    }

    #[test]
    fn a_jetson_is_told_from_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let told = || detect(dir.path()).map(|jetson| (jetson.platform(), jetson.chip));
        assert_eq!(told(), None);
        put("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0");
        assert_eq!(told(), None);
        put("proc/device-tree/model", "NVIDIA Jetson AGX Thor Developer Kit\0");
        assert_eq!(told(), Some((Platform::Jetpack7, Chip::Thor)), "without a release, by the chip");
        put("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0");
        assert_eq!(told(), Some((Platform::Jetpack6, Chip::Orin)));
        put("etc/nv_tegra_release", "# R35 (release), REVISION: 4.1, GCID: 1");
        assert_eq!(told(), Some((Platform::Jetpack5, Chip::Orin)));
        put("etc/nv_tegra_release", "# R39 (release), REVISION: 2.0, GCID: 1");
        assert_eq!(told(), Some((Platform::Jetpack7, Chip::Orin)), "JetPack 7.2 is for Orin too");
        put("proc/device-tree/model", "Somebody's carrier board\0");
        put("proc/device-tree/compatible", "somebody,board\0nvidia,p3834\0nvidia,tegra264\0");
        assert_eq!(told(), Some((Platform::Jetpack7, Chip::Thor)));
    }
}
