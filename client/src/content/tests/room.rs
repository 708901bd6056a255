//! Room in the cache.

use super::*;

#[tokio::test]
async fn the_longest_unused_files_make_room() {
    let lab = Lab::new(Manner::Honest);
    let (old, recent) = (lab.directory().join("old"), lab.directory().join("recent"));
    for (path, age) in [(&old, 7_200), (&recent, 60)] {
        std::fs::write(path, vec![0; 400_000]).unwrap();
        let used = SystemTime::now() - Duration::from_secs(age);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(used).unwrap();
    }

    lab.fetch().await.unwrap();

    assert_eq!((old.exists(), recent.exists()), (false, true));
}

#[tokio::test]
async fn a_cache_full_of_what_is_in_use_takes_nothing_and_keeps_all() {
    let mut lab = Lab::new(Manner::Honest);
    let (old, recent) = (lab.directory().join("old"), lab.directory().join("recent"));
    for (path, age) in [(&old, 7_200), (&recent, 60)] {
        std::fs::write(path, vec![0; 400_000]).unwrap();
        let used = SystemTime::now() - Duration::from_secs(age);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(used).unwrap();
    }
    lab.content.config.cache_bytes_max = lab.resource.size + 399_999;

    let error = lab.fetch().await.unwrap_err();

    assert!(matches!(error, ContentError::NoRoom { kept: 400_000, .. }), "{error}");
    assert_eq!((old.exists(), recent.exists(), lab.requests()), (true, true, 0));
}

#[tokio::test]
async fn downloads_under_way_count_each_other_until_they_end() {
    let mut lab = Lab::new(Manner::Honest);
    lab.content.config.cache_bytes_max = lab.resource.size + 99;
    let other = PlanResource { root: Digest::from([7; 32]), size: 100, ..lab.resource.clone() };

    let room = lab.content.make_room(&other).await.unwrap();
    assert!(matches!(lab.fetch().await.unwrap_err(), ContentError::NoRoom { kept: 100, .. }));
    drop(room);

    lab.fetch().await.unwrap();
}

#[tokio::test]
async fn a_mark_of_the_future_keeps_no_file_for_ever() {
    let mut lab = Lab::new(Manner::Honest);
    let wrong = lab.directory().join("wrong");
    std::fs::write(&wrong, vec![0; 400_000]).unwrap();
    let used = SystemTime::now() + Duration::from_secs(86_400);
    std::fs::File::options().write(true).open(&wrong).unwrap().set_modified(used).unwrap();
    lab.content.config.cache_bytes_max = lab.resource.size;

    lab.fetch().await.unwrap();

    assert!(!wrong.exists());
}
