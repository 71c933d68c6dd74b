//! `[[camera]]`: sources, logins and the models that watch.

use std::time::Duration;

use kinewatch_capture::Source;
use kinewatch_core::region::Region;

use super::document::key;
use super::file::{Camera, Transport};
use super::models::Models;
use super::plan::{CameraPlan, ModelPlan};
use super::resolve::{Resolver, twice};
use super::secret::{self, Login};
use super::shape::nearest;

pub(super) fn resolve(r: &mut Resolver<'_>, cameras: &[Camera], models: &Models) -> Vec<Option<CameraPlan>> {
    if cameras.is_empty() {
        r.warn(
            &key![],
            "no [[camera]] yet: nothing is watched; add one with name = \"front\" and source = \"rtsp://…\"",
        );
    }
    for (i, camera) in cameras.iter().enumerate() {
        r.name(&camera.name, &key!["camera", i, "name"], "[[camera]]");
    }
    twice(r, "camera", cameras.iter().enumerate().map(|(i, c)| (i, c.name.as_str())));
    cameras.iter().enumerate().map(|(i, c)| one(r, i, c, models)).collect()
}

fn one(r: &mut Resolver<'_>, i: usize, camera: &Camera, models: &Models) -> Option<CameraPlan> {
    let watching = watching(r, i, camera, &models.names);
    let zones = zones(r, i, camera);
    // A model that is not usable has been told; whether it takes zones is not known.
    if let Some(plans) = watching.iter().map(|&m| models.plans[m].as_ref()).collect::<Option<Vec<_>>>() {
        fit(r, i, camera, &plans);
    }
    let source = source(r, i, camera);
    let login = login(r, i, camera);
    if let Some(source) = source.as_ref().filter(|s| !matches!(s, Source::Rtsp { .. })) {
        let (has_login, has_transport) = (
            camera.credentials_file.is_some() || camera.username_file.is_some() || camera.password_file.is_some(),
            camera.transport.is_some(),
        );
        for (present, name) in [(has_login, "a login"), (has_transport, "transport")] {
            if present {
                r.warn(
                    &key!["camera", i],
                    format!(
                        "camera \"{}\": {name} is of use to rtsp:// alone, not to {source}; leave it out",
                        camera.name
                    ),
                );
            }
        }
    }
    let source = source?;
    Some(CameraPlan {
        name: camera.name.clone(),
        frozen_timeout: frozen_timeout(r, i, camera, &source),
        source,
        login,
        transport: camera.transport.unwrap_or(Transport::Tcp),
        stall_timeout: Duration::from_secs_f64(camera.stall_timeout_s.clamp(0.1, 86_400.0)),
        min_rate_hz: camera.min_rate_hz.clamp(0.1, 30.0),
        models: watching,
        zones,
    })
}

fn frozen_timeout(r: &mut Resolver<'_>, i: usize, camera: &Camera, source: &Source) -> Option<Duration> {
    let Some(seconds) = camera.frozen_timeout_s else { return kinewatch_capture::frozen_timeout(source) };
    if seconds <= 0.0 {
        return None;
    }
    if !kinewatch_capture::can_freeze(source) {
        let name = &camera.name;
        r.warn(
            &key!["camera", i, "frozen_timeout_s"],
            format!("camera \"{name}\": frozen_timeout_s is of use to cameras alone, not to {source}; leave it out"),
        );
    }
    Some(Duration::from_secs_f64(seconds.clamp(1.0, 86_400.0)))
}

fn watching(r: &mut Resolver<'_>, i: usize, camera: &Camera, models: &[String]) -> Vec<usize> {
    let Some(names) = &camera.models else { return (0..models.len()).collect() };
    if names.is_empty() {
        r.error(
            &key!["camera", i, "models"],
            format!("camera \"{}\": models is empty; name one, or leave the key out for all", camera.name),
        );
    }
    let mut watching = Vec::new();
    for (k, name) in names.iter().enumerate() {
        match models.iter().position(|m| m == name) {
            Some(m) if watching.contains(&m) => {
                r.error(
                    &key!["camera", i, "models", k],
                    format!("camera \"{}\": model \"{name}\" is named twice; name it once", camera.name),
                );
            }
            Some(m) => watching.push(m),
            None => {
                let hint = nearest(name, models.iter().map(String::as_str)).map_or_else(
                    || {
                        if models.is_empty() {
                            "no [[model]] is configured".to_owned()
                        } else {
                            format!("known: {}", models.join(", "))
                        }
                    },
                    |n| format!("did you mean \"{n}\"?"),
                );
                r.error(
                    &key!["camera", i, "models", k],
                    format!("camera \"{}\": no [[model]] is named \"{name}\"; {hint}", camera.name),
                );
            }
        }
    }
    watching
}

fn zones(r: &mut Resolver<'_>, i: usize, camera: &Camera) -> Vec<Region> {
    let mut zones = Vec::with_capacity(camera.zones.len());
    for (k, corners) in camera.zones.iter().enumerate() {
        match Region::new(corners.map(|c| c as f32)) {
            Ok(zone) => zones.push(zone),
            Err(e) => r.error(&key!["camera", i, "zones", k], format!("camera \"{}\": zone {e}", camera.name)),
        }
    }
    zones
}

/// Whether the models that watch the camera take its zones.
fn fit(r: &mut Resolver<'_>, i: usize, camera: &Camera, watching: &[&ModelPlan]) {
    let (name, count, at) = (&camera.name, camera.zones.len(), key!["camera", i, "zones"]);
    let takes = |model: &ModelPlan| model.manifest.tensors.boxes.as_ref().map(|boxes| boxes.count);
    for model in watching {
        if let Some(most) = takes(model).filter(|most| count > *most) {
            let advice = "leave some out, or watch them with another [[camera]] of the same source";
            r.error(
                &at,
                format!("camera \"{name}\" has {count} zones, model \"{}\" takes {most}: {advice}", model.name),
            );
        }
    }
    if count > 0 && !watching.is_empty() && watching.iter().all(|model| takes(model).is_none()) {
        r.warn(
            &at,
            format!("camera \"{name}\": zones are of no use, none of its models takes boxes; leave the key out"),
        );
    }
}

fn source(r: &mut Resolver<'_>, i: usize, camera: &Camera) -> Option<Source> {
    let at = key!["camera", i, "source"];
    let mut source = match Source::parse(&camera.source) {
        Ok(source) => source,
        Err(e) => {
            r.error(&at, format!("camera \"{}\": {e}", camera.name));
            return None;
        }
    };
    match &mut source {
        Source::Rtsp { credentials: Some(_), .. } => {
            let place = "put user:password into a file with mode 0600 and name it with credentials_file";
            r.error(
                &at,
                format!("camera \"{}\": user and password do not belong into the configuration; {place}", camera.name),
            );
            return None;
        }
        Source::File { path, .. } => {
            *path = r.path(path);
            if r.looks_at_machine()
                && let Err(e) = kinewatch_capture::check_file(path)
            {
                r.error(&at, format!("camera \"{}\": {e}; check the path", camera.name));
            }
        }
        Source::V4l2 { device, .. } if r.looks_at_machine() && !std::path::Path::new(device.as_str()).exists() => {
            // Not an error: the rest must not stay down after a start without it.
            r.warn(
                &at,
                format!(
                    "camera \"{}\": {device} does not exist, and is tried until it does; `kinewatch devices` lists what \
                     is connected",
                    camera.name
                ),
            );
        }
        _ => {}
    }
    Some(source)
}

fn login(r: &mut Resolver<'_>, i: usize, camera: &Camera) -> Option<Login> {
    let of = |key: &str| format!("camera \"{}\": {key}", camera.name);
    let at = |name: &str| key!["camera", i, name];
    if camera.credentials_file.is_some() && (camera.username_file.is_some() || camera.password_file.is_some()) {
        r.error(
            &at("credentials_file"),
            format!("{} and username_file/password_file say the same; keep one", of("credentials_file")),
        );
    }
    if camera.username_file.is_some() != camera.password_file.is_some() {
        r.error(
            &key!["camera", i],
            format!("camera \"{}\": username_file and password_file belong together; add the other", camera.name),
        );
    }
    if let Some((text, path)) =
        r.secret(camera.credentials_file.as_ref(), &at("credentials_file"), &of("credentials_file"))
    {
        return secret::login(&text, &path)
            .map_err(|e| r.error(&at("credentials_file"), format!("{}: {e}", of("credentials_file"))))
            .ok();
    }
    let user = r.secret(camera.username_file.as_ref(), &at("username_file"), &of("username_file"));
    let password = r.secret(camera.password_file.as_ref(), &at("password_file"), &of("password_file"));
    user.zip(password).map(|((user, _), (password, _))| Login { user: user.expose().to_owned(), password })
}

impl From<&Login> for kinewatch_capture::Credentials {
    fn from(login: &Login) -> Self {
        Self::new(login.user.clone(), login.password.expose())
    }
}
