//! What a `User-Agent` header says of the browser, the operating system and the device; and whether it is a bot's.
//!
//! Families only, no versions: that is what a summary shows. Tables of tokens, read from the top, because every browser
//! also names those it wants to be taken for: the more special token stands first. [`person`] tells people from programs,
//! [`memo`] remembers what was read. What browsers and programs send is in `tests/corpora/user_agents.tsv`.

pub mod memo;
mod person;

pub use self::memo::Agents;

/// What is known of a visitor's software. The names are a small fixed set, so they make short rows and short lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserAgent {
    /// The browser's family: `Chrome`, `Safari`, ...
    pub browser: &'static str,
    /// The operating system's family: `Windows`, `iOS`, ...
    pub operating_system: &'static str,
    /// `desktop`, `mobile`, `tablet` or `other`.
    pub device: &'static str,
    /// Whether it is a crawler, a link preview, a tool or a library, and no person's browser.
    pub bot: bool,
}

/// What is said of software that no table knows.
pub const OTHER: &str = "Other";
/// What is said of a device that is neither a computer, a phone nor a tablet.
pub const OTHER_DEVICE: &str = "other";

type Table = &'static [(&'static str, &'static str)];

const BROWSERS: Table = &[
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("EdgW/", "Edge"),
    ("Edge/", "Edge"),
    // Apps that show pages, before the browser that they are made of.
    ("Instagram", "Instagram"),
    ("Barcelona ", "Threads"),
    ("FBAN/", "Facebook"),
    ("FBAV/", "Facebook"),
    ("FB_IAB/", "Facebook"),
    ("BytedanceWebview", "TikTok"),
    ("musical_ly", "TikTok"),
    ("trill_", "TikTok"),
    ("Snapchat", "Snapchat"),
    ("[Pinterest/", "Pinterest"),
    ("Pinterest/", "Pinterest"),
    ("LinkedInApp", "LinkedIn"),
    ("Twitter for ", "X"),
    ("TwitterAndroid", "X"),
    (" Line/", "LINE"),
    ("MicroMessenger/", "WeChat"),
    ("KAKAOTALK", "KakaoTalk"),
    ("NAVER(", "NAVER"),
    ("baiduboxapp", "Baidu"),
    ("Telegram-Android/", "Telegram"),
    ("AlipayClient", "Alipay"),
    ("GSA/", "Google app"),
    // Browsers that are made of another one.
    ("OPR/", "Opera"),
    ("OPT/", "Opera"),
    ("OPX/", "Opera"),
    ("OPiOS/", "Opera"),
    ("Opera", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("YaBrowser/", "Yandex Browser"),
    ("YaApp_", "Yandex Browser"),
    ("YaSearchBrowser", "Yandex Browser"),
    ("Vivaldi/", "Vivaldi"),
    (" Brave", "Brave"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("Ddg/", "DuckDuckGo"),
    ("Ecosia", "Ecosia"),
    ("UCBrowser", "UC Browser"),
    ("UC Browser", "UC Browser"),
    (")UC ", "UC Browser"),
    ("UCWEB", "UC Browser"),
    ("U2/1", "UC Browser"),
    ("MiuiBrowser/", "Xiaomi Browser"),
    ("HuaweiBrowser/", "Huawei Browser"),
    ("HBPC/", "Huawei Browser"),
    ("HeyTapBrowser/", "HeyTap Browser"),
    ("VivoBrowser/", "Vivo Browser"),
    ("MQQBrowser", "QQ Browser"),
    ("QQBrowser", "QQ Browser"),
    ("Sogou", "Sogou"),
    (" SE 2.X", "Sogou"),
    ("QihooBrowser", "360 Browser"),
    ("360SE", "360 Browser"),
    ("Quark/", "Quark"),
    ("Silk/", "Amazon Silk"),
    ("Whale/", "Whale"),
    ("coc_coc_browser/", "Coc Coc"),
    ("AvastSecureBrowser/", "Avast"),
    (" Avast/", "Avast"),
    ("Puffin/", "Puffin"),
    ("Maxthon", "Maxthon"),
    ("MxBrowser/", "Maxthon"),
    ("AlohaBrowser/", "Aloha"),
    ("OculusBrowser/", "Meta Quest Browser"),
    ("Phoenix/", "Phoenix"),
    ("Konqueror", "Konqueror"),
    ("PaleMoon/", "Pale Moon"),
    ("SeaMonkey/", "SeaMonkey"),
    ("FxiOS/", "Firefox"),
    (" Focus/", "Firefox"),
    (" Klar/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("IEMobile", "Internet Explorer"),
    ("CriOS/", "Chrome"),
    ("Chromium/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("CrMo/", "Chrome"),
    ("ArkWeb/", "ArkWeb"),
    ("Trident/", "Internet Explorer"),
    ("MSIE ", "Internet Explorer"),
    ("NetFront", "NetFront"),
    ("BlackBerry", "BlackBerry Browser"),
    ("BB10", "BlackBerry Browser"),
    ("PlayBook", "BlackBerry Browser"),
    ("Symbian", "Nokia Browser"),
    ("Series60", "Nokia Browser"),
    ("Nokia", "Nokia Browser"),
    ("Lynx/", "Lynx"),
    ("w3m/", "w3m"),
    // Safari's own tokens come last: almost everything above claims to be Safari, too. The web views of iOS name no browser.
    ("Android", "Android Browser"),
    ("Safari", "Safari"),
    ("iPhone", "Safari"),
    ("iPad", "Safari"),
    ("iPod", "Safari"),
];

const OPERATING_SYSTEMS: Table = &[
    ("Windows Phone", OTHER),
    ("Windows CE", OTHER),
    ("Tizen", OTHER),
    ("Web0S", OTHER),
    ("KAIOS", OTHER),
    ("KaiOS", OTHER),
    ("PlayStation", OTHER),
    ("PLAYSTATION", OTHER),
    ("Nintendo", OTHER),
    ("Symb", OTHER),
    ("BlackBerry", OTHER),
    ("BSD", OTHER),
    // Older releases name Android as well.
    ("HarmonyOS", "HarmonyOS"),
    ("OpenHarmony", "HarmonyOS"),
    ("ArkWeb/", "HarmonyOS"),
    ("GoogleTV", "Android"),
    ("Windows", "Windows"),
    ("iPhone", "iOS"),
    ("iPad", "iOS"),
    ("iPod", "iOS"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Macintosh", "macOS"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
];

const DEVICES: Table = &[
    ("SMART-TV", OTHER_DEVICE),
    ("SmartTV", OTHER_DEVICE),
    ("Smart TV", OTHER_DEVICE),
    ("Smart-TV", OTHER_DEVICE),
    ("SmartHub", OTHER_DEVICE),
    ("Android TV", OTHER_DEVICE),
    ("Android/TV", OTHER_DEVICE),
    ("GoogleTV", OTHER_DEVICE),
    ("Large Screen", OTHER_DEVICE),
    ("AppleTV", OTHER_DEVICE),
    ("Apple TV", OTHER_DEVICE),
    ("HbbTV", OTHER_DEVICE),
    ("DTV", OTHER_DEVICE),
    ("NetCast", OTHER_DEVICE),
    ("BRAVIA", OTHER_DEVICE),
    ("MiTV", OTHER_DEVICE),
    ("MIBOX", OTHER_DEVICE),
    ("Chromecast", OTHER_DEVICE),
    ("CrKey", OTHER_DEVICE),
    ("; AFT", OTHER_DEVICE),
    ("Web0S", OTHER_DEVICE),
    ("PlayStation", OTHER_DEVICE),
    ("PLAYSTATION", OTHER_DEVICE),
    ("Nintendo", OTHER_DEVICE),
    ("Xbox", OTHER_DEVICE),
    ("OculusBrowser/", OTHER_DEVICE),
    ("Tesla/", OTHER_DEVICE),
    ("(TV; OpenHarmony", OTHER_DEVICE),
    ("(PC; OpenHarmony", "desktop"),
    ("(2in1; OpenHarmony", "desktop"),
    ("iPad", "tablet"),
    ("Tablet PC", "desktop"),
    ("Tablet", "tablet"),
    ("PlayBook", "tablet"),
    ("Kindle", "tablet"),
    ("iPhone", "mobile"),
    ("iPod", "mobile"),
    ("Mobi", "mobile"),
    ("Phone", "mobile"),
    ("Windows CE", "mobile"),
    ("Opera Mini", "mobile"),
    ("UCWEB", "mobile"),
    ("J2ME", "mobile"),
    ("MIDP", "mobile"),
    ("Symb", "mobile"),
    ("BlackBerry", "mobile"),
    ("Nokia", "mobile"),
    // Phones with Android say `Mobile`, tablets do not: https://developer.chrome.com/docs/multidevice/user-agent
    ("Android", "tablet"),
    ("HarmonyOS", "tablet"),
    ("Windows", "desktop"),
    ("Macintosh", "desktop"),
    ("CrOS", "desktop"),
    ("X11", "desktop"),
    ("Linux", "desktop"),
];

/// Reads a `User-Agent` header; an empty one is a bot's, for every browser sends one.
pub fn parse(header: &str) -> UserAgent {
    UserAgent {
        browser: first(BROWSERS, header).unwrap_or(OTHER),
        operating_system: first(OPERATING_SYSTEMS, header).unwrap_or(OTHER),
        device: first(DEVICES, header).unwrap_or(OTHER_DEVICE),
        bot: !person::is_person(header),
    }
}

fn first(table: Table, header: &str) -> Option<&'static str> {
    table.iter().find(|(token, _)| header.contains(token)).map(|&(_, name)| name)
}

#[cfg(test)]
mod tests;
