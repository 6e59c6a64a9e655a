//! Users and groups of this host by name or number, as /etc has them.

use std::fs;
use std::io;

/// A user, and the group that comes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    pub(super) id: u32,
    /// `None` = a number that no account has.
    pub(super) group: Option<u32>,
}

/// The user of that name or number; `None` = there is none of that name.
pub(super) fn user(name: &str) -> io::Result<Option<User>> {
    let accounts = fs::read_to_string("/etc/passwd")?;
    Ok(find_user(&accounts, name))
}

fn find_user(accounts: &str, name: &str) -> Option<User> {
    let number = name.parse().ok();
    let mut users = accounts.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()?;
        let id: u32 = fields.nth(1)?.parse().ok()?;
        let is_it = number.map_or(found == name, |number: u32| number == id);
        is_it.then(|| User { id, group: fields.next().and_then(|group| group.parse().ok()) })
    });
    users.next().or_else(|| number.map(|id| User { id, group: None }))
}

/// The number of a group of that name or number; `None` = there is none of that name.
pub(super) fn group_id(name: &str) -> io::Result<Option<u32>> {
    if let Ok(id) = name.parse() {
        return Ok(Some(id));
    }
    let groups = fs::read_to_string("/etc/group")?;
    Ok(groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()?;
        let id = fields.nth(1)?;
        (found == name).then(|| id.parse().ok()).flatten()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: &str = "root:x:0:0:root:/root:/bin/sh\n+nis\nweb:x:33:34::/srv:/bin/false\n";

    #[test]
    fn a_user_comes_with_its_group_by_name_and_by_number() {
        let web = Some(User { id: 33, group: Some(34) });
        assert_eq!(find_user(ACCOUNTS, "web"), web);
        assert_eq!(find_user(ACCOUNTS, "33"), web);
        assert_eq!(find_user(ACCOUNTS, "root"), Some(User { id: 0, group: Some(0) }));
    }

    #[test]
    fn a_number_needs_no_account_and_a_name_does() {
        assert_eq!(find_user(ACCOUNTS, "77"), Some(User { id: 77, group: None }));
        assert_eq!(find_user(ACCOUNTS, "we"), None);
        assert_eq!(find_user(ACCOUNTS, ""), None);
    }
}
