use super::*;

fn settings(store: &Path, more: &[(&str, &str)]) -> Settings {
    let mut pairs = vec![("JETSTREAM_STORE_DIR", store.to_str().unwrap())];
    pairs.extend(more);
    Settings::load(&pairs.as_slice(), &[]).unwrap().settings
}

fn clustered(store: &Path) -> Settings {
    settings(store, &[("NATS_CLUSTER_ENABLED", "true"), ("NATS_CLUSTER_ROUTES", "nats://b:6222")])
}

fn with_stream(store: &Path) {
    fs::create_dir_all(store.join("jetstream/$G/streams/MARKET_DATA")).unwrap();
}

#[test]
fn a_cluster_over_a_standalone_store_with_streams_is_refused_untouched() {
    let store = tempfile::tempdir().unwrap();
    with_stream(store.path());
    let refused = check_mode(&clustered(store.path())).unwrap_err().to_string();
    assert!(refused.contains("MARKET_DATA"), "{refused}");
    assert!(!store.path().join(MODE).exists());
    check_mode(&settings(store.path(), &[])).unwrap();
    assert!(check_mode(&clustered(store.path())).is_err(), "also when the marker says so");
}

#[test]
fn empty_and_clustered_stores_join_clusters() {
    let empty = tempfile::tempdir().unwrap();
    check_mode(&clustered(empty.path())).unwrap();
    with_stream(empty.path());
    assert!(check_mode(&clustered(empty.path())).is_err(), "no cluster has written these streams");
    fs::create_dir_all(empty.path().join("jetstream/$SYS/_js_/_meta_")).unwrap();
    check_mode(&clustered(empty.path())).unwrap();
    check_mode(&settings(empty.path(), &[])).unwrap();
    assert!(check_mode(&clustered(empty.path())).is_err(), "it was used standalone in between");

    let foreign = tempfile::tempdir().unwrap();
    with_stream(foreign.path());
    fs::create_dir_all(foreign.path().join("jetstream/$SYS/_js_/_meta_")).unwrap();
    check_mode(&clustered(foreign.path())).unwrap();
}

/// A program that says it is nats-server of that version.
fn server(directory: &Path, version: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let (path, next) = (directory.join("nats-server"), directory.join("next"));
    fs::write(&next, format!("#!/bin/sh\necho nats-server: v{version}\n")).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(next, &path).unwrap();
    path
}

fn check(store: &Store, executable: &Path) -> Result<(), String> {
    store.check(executable, &Reaper::default()).map_err(|hindrance| match hindrance {
        Hindrance::Passing(reason) => reason,
        Hindrance::Failed(error) => panic!("{error}"),
    })
}

/// A start over the store with that server, up to its launch.
fn start(settings: &Settings, path: &Path) -> Result<Store, String> {
    let (store, reaper) = (Store::open(settings), Reaper::default());
    store.admit(&ask(path, &reaper).unwrap()).map_err(|problems| problems.to_string())?;
    check(&store, path)?;
    Ok(store)
}

#[test]
fn only_the_store_that_was_used_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (place, executable) = (at("store"), server(directory.path(), "2.15.1"));
    fs::create_dir(&place).unwrap();
    let settings = settings(&place, &[]);
    check_mode(&settings).unwrap();
    let store = start(&settings, &executable).unwrap();
    let check = || check(&store, &executable);
    check().unwrap();
    for damage in [fs::remove_file as fn(PathBuf) -> io::Result<()>, |path| fs::write(path, "{")] {
        damage(place.join(MARKER)).unwrap();
        store.is_there().unwrap();
        check().unwrap();
        assert!(marker::read(&place).is_ok(), "it is written anew");
    }
    fs::rename(place.join(MODE), at("mode")).unwrap_or_default();
    fs::remove_file(place.join(MARKER)).unwrap();
    assert!(check().unwrap_err().contains("holds no marker"), "all of it was removed");
    assert!(store.is_there().unwrap_err().contains("holds no marker"));
    fs::write(place.join(MODE), "standalone").unwrap();
    check().unwrap();

    fs::rename(&place, at("away")).unwrap();
    let refused = check().unwrap_err();
    assert!(refused.contains("holds no marker") && refused.contains(place.to_str().unwrap()), "{refused}");
    fs::create_dir(&place).unwrap();
    assert!(check().unwrap_err().contains("holds no marker"), "an empty directory");
    start(&settings, &executable).unwrap();
    assert!(check().unwrap_err().contains("another store"));
    fs::write(place.join(MARKER), "").unwrap();
    assert!(check().unwrap_err().contains("cannot be read"));
    fs::remove_dir_all(&place).unwrap();
    fs::create_dir(&place).unwrap();
    fs::copy(at("away").join(MARKER), place.join(MARKER)).unwrap();
    assert!(check().unwrap_err().contains("it is a copy, and the one that was used is somewhere else"));
    assert!(store.is_there().unwrap_err().contains("it is a copy"));
    let older = Marker { launches: 0, ..marker::read(&place).unwrap() };
    older.write(&place).unwrap();
    assert!(check().unwrap_err().contains("an older copy"));
    // The one that was used is the right one, whatever it says of itself.
    fs::remove_dir_all(&place).unwrap();
    older.write(&at("away")).unwrap();
    fs::rename(at("away"), &place).unwrap();
    store.is_there().unwrap();
    check().unwrap();
    assert!(marker::read(&place).unwrap().launches > 1, "and knows of all launches again");
}

#[test]
fn a_copy_of_a_store_that_was_removed_is_waited_for_and_taken_by_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let (place, copy) = (directory.path().join("store"), directory.path().join("copy"));
    let executable = server(directory.path(), "2.15.1");
    fs::create_dir(&place).unwrap();
    let settings = settings(&place, &[]);
    let store = start(&settings, &executable).unwrap();
    fs::create_dir(&copy).unwrap();
    fs::copy(place.join(MARKER), copy.join(MARKER)).unwrap();
    fs::remove_dir_all(&place).unwrap();
    fs::rename(&copy, &place).unwrap();
    for _ in 0..2 {
        assert!(check(&store, &executable).unwrap_err().contains("the one that was used was removed"));
    }
    let next = start(&settings, &executable).unwrap();
    check(&next, &executable).unwrap();
}

#[test]
fn a_store_whose_marker_could_not_be_written_is_told_by_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let (place, executable) = (directory.path().join("store"), server(directory.path(), "2.15.1"));
    fs::create_dir(&place).unwrap();
    // Stands for a disk that is full.
    fs::create_dir(place.join(MARKER)).unwrap();
    let store = start(&settings(&place, &[]), &executable).unwrap();
    let check = || check(&store, &executable);
    check().unwrap();
    fs::rename(&place, directory.path().join("away")).unwrap();
    fs::create_dir(&place).unwrap();
    assert!(check().unwrap_err().contains("another directory"));
    fs::remove_dir(&place).unwrap();
    fs::rename(directory.path().join("away"), &place).unwrap();
    fs::remove_dir(place.join(MARKER)).unwrap();
    check().unwrap();
    assert!(marker::read(&place).is_ok(), "it is written as soon as that is possible");
}

#[test]
fn an_older_server_is_refused_unless_that_is_meant() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("store");
    fs::create_dir(&place).unwrap();
    let as_usual = settings(&place, &[]);
    let meant = settings(&place, &[("NATS_SERVER_ALLOW_DOWNGRADE", "true")]);
    let newest = || marker::read(&place).unwrap().newest_server.unwrap().to_string();
    start(&as_usual, &server(directory.path(), "2.12.8")).unwrap();
    let store = start(&as_usual, &server(directory.path(), "2.15.1")).unwrap();
    for version in ["2.15.0", "2.12.8", "2.10.26"] {
        let older = server(directory.path(), version);
        for refused in [start(&as_usual, &older).map(drop), check(&store, &older)] {
            let refused = refused.unwrap_err();
            for part in [version, "2.15.1", "NATS_SERVER_ALLOW_DOWNGRADE", place.to_str().unwrap()] {
                assert!(refused.contains(part), "{part}: {refused}");
            }
        }
        assert_eq!(newest(), "2.15.1");
    }
    check(&store, &server(directory.path(), "2.15.2")).unwrap();
    assert_eq!(newest(), "2.15.2");
    start(&meant, &server(directory.path(), "2.10.26")).unwrap();
    assert_eq!(newest(), "2.10.26", "a store that was taken back is one of the older version");
    start(&as_usual, &server(directory.path(), "2.10.26")).unwrap();
}

#[test]
fn a_required_marker_keeps_an_empty_directory_from_being_used() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("store");
    let required = settings(&place, &[("JETSTREAM_REQUIRE_MARKER", "true")]);
    for exists in [false, true] {
        assert_eq!(place.exists(), exists);
        let refused = check_marker(&required).unwrap_err().to_string();
        assert!(refused.contains("JETSTREAM_REQUIRE_MARKER=false"), "{refused}");
        fs::create_dir_all(&place).unwrap();
    }
    check_marker(&settings(&place, &[])).unwrap();
    start(&settings(&place, &[]), &server(directory.path(), "2.15.1")).unwrap();
    check_marker(&required).unwrap();
    fs::remove_file(place.join(MARKER)).unwrap();
    check_mode(&settings(&place, &[])).unwrap();
    check_marker(&required).unwrap();
}
