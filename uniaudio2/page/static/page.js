const page = document.documentElement, said = [...document.querySelectorAll("[data-zh]")];
for (const one of said) one.dataset.en = one.getAttribute(one.alt === undefined ? "aria-label" : "alt");

function translate(language) {
  page.lang = language;
  for (const one of said) one.setAttribute(one.alt === undefined ? "aria-label" : "alt", one.dataset[language]);
}

function remembered(language) {
  try {
    if (language) localStorage.setItem("uniaudio2-language", language);
    return localStorage.getItem("uniaudio2-language");
  } catch {
    return null; // a browser may refuse to remember
  }
}

translate(remembered() ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
document.querySelector("#language").onclick = () => {
  translate(page.lang === "zh" ? "en" : "zh");
  remembered(page.lang);
};

// One player at a time, with a line that moves over its picture; a click on the picture plays from there.
addEventListener("play", (event) => {
  for (const one of document.querySelectorAll("audio")) if (one !== event.target) one.pause();
  const line = event.target.parentElement.querySelector("i");
  const move = () => {
    line.style.display = event.target.currentTime ? "block" : "none";
    line.style.left = `${100 * event.target.currentTime / (event.target.duration || 1)}%`;
    if (!event.target.paused) requestAnimationFrame(move);
  };
  move();
}, true);
for (const picture of document.querySelectorAll(".axes")) {
  const audio = picture.parentElement.querySelector("audio");
  picture.onclick = async (event) => {
    await audio.play();
    audio.currentTime = audio.duration * event.offsetX / picture.clientWidth;
  };
}
