//! The demo's own story, which checks itself.

use crate::harness::skein;

#[test]
fn the_story_goes_as_it_should() {
    let ran = skein(&["demo", "--smoke"]).ok();
    assert!(
        ran.stderr.contains("first write after the leader's death"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("the story went as it should"),
        "{}",
        ran.stderr
    );
}
