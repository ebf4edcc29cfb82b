// The words of the page in English and Chinese. `say` notes which words an element has, for `translate`.

const WORDS = {
  listens_speaks: ["listens and speaks", "会听，也会说"],
  sections: ["Sections", "各部分"],
  key: ["Key of this server", "此服务器的密钥"],
  use_key: ["Use it", "使用"],
  loading: ["The model is being loaded …", "正在加载模型……"],
  serves: ["The model {model} on this server, version {version}.", "此服务器上的模型 {model}，版本 {version}。"],
  speak: ["It speaks", "它会说"],
  speak_sub: ["Text read aloud; it is heard while it is still being made.", "朗读文字；边生成边播放。"],
  text: ["Text", "文字"],
  voice: ["Voice", "声音"],
  voice_default: ["house voice", "默认声音"],
  voice_own: ["a recording …", "一段录音……"],
  voice_sample: ["About 3 s of the voice", "约 3 秒的声音样本"],
  voice_name: ["Name", "名称"],
  voice_keep: ["Keep it on the server", "存到服务器"],
  voice_delete: ["Delete this voice", "删除此声音"],
  language: ["Language", "语言"],
  auto: ["found out", "自动识别"],
  instruction: ["How it should sound", "怎样的语气"],
  speed: ["Speed", "语速"],
  take: ["Take", "第几次"],
  do_speak: ["Speak", "朗读"],
  stop: ["Stop", "停止"],
  spoken: ["Spoken", "朗读"],
  speech_note: ["first sound after {first} s, all {length} s after {whole} s", "{first} 秒后出声，{whole} 秒后完成全部 {length} 秒"],
  listen: ["It listens", "它会听"],
  listen_sub: ["Speak, or give it a recording; the words appear while it listens.", "说话，或给它一段录音；边听边出文字。"],
  do_listen: ["Write it down", "写下来"],
  written: ["Written down", "听写"],
  listening: ["listening …", "正在听……"],
  written_note: ["{length} s heard in {whole} s", "{length} 秒录音，用时 {whole} 秒"],
  nothing_said: ["nothing was said", "没有听到话语"],
  sounds: ["It makes sounds", "它会造声音"],
  captions: ["It knows sounds", "它认得声音"],
  changes: ["It does more", "它还会"],
  untrained: ["This model was not trained for: ", "此模型没有学过："],
  run: ["Go", "开始"],
  running: ["at work …", "进行中……"],
  work_note: ["{whole} s of work", "用时 {whole} 秒"],
  task: ["Task", "任务"],
  example: ["Example {number}", "示例 {number}"],
  more_examples: ["One more example", "再加一个示例"],
  question: ["And now?", "那么这个呢？"],
  answer: ["Answer", "回答"],
  codec: ["Codes and back", "编码与还原"],
  codec_sub: ["A recording as a few small numbers a second, and as sound again.", "把录音变成每秒几个小数字，再还原成声音。"],
  do_codec: ["Encode and decode", "编码并还原"],
  codes: ["Codes", "编码"],
  codes_picture: ["codes over time, one row for each codebook, one colour for each code", "随时间的编码：每行一个码本，每种颜色一个码"],
  codes_file: ["Codes (JSON)", "编码（JSON）"],
  bit_rate: ["{rate} bits a second, {times} times less than 16-bit samples", "每秒 {rate} 比特，是 16 位采样的 1/{times}"],
  compare: ["Compare", "对比"],
  original: ["A: original", "A：原声"],
  decoded: ["B: decoded", "B：还原"],
  made: ["Made on this visit", "本次记录"],
  made_sub: ["Kept in this page until it is closed.", "只保存在此页面中，关闭后即消失。"],
  play: ["Play", "播放"],
  download: ["Download", "下载"],
  drop: ["Drop a recording here, or choose one", "把录音拖到这里，或选择文件"],
  record: ["● Record", "● 录音"],
  record_stop: ["■ Stop", "■ 停止"],
  recorded: ["Recording", "录音"],
  picture_of: ["waveform and spectrogram of {length} s", "{length} 秒的波形与频谱图"],
  seconds: ["{length} s", "{length} 秒"],
  no_picture: ["not playable here; the server may read it", "此浏览器无法播放；服务器也许可以"],
  need_audio: ["Record something or choose a file first.", "请先录音或选择文件。"],
  no_microphone: ["No microphone. Browsers open it if you allow it, on localhost or over https.", "没有麦克风。浏览器只在获准后、在 localhost 或 https 下使用它。"],
  unreachable: ["No answer from the server. Does it still run?", "服务器没有应答。它还在运行吗？"],
  cut_off: ["The server ended before it was done: try again.", "服务器提前结束了：请重试。"],
  footer: ["Voices are synthetic. Pictures: waveform, log-mel spectrogram from 0 to 12 kHz.", "声音均为合成。图：波形；0 至 12 kHz 的对数梅尔频谱图。"],
  task_tta: ["Sounds", "声音"],
  task_ttm: ["Music", "音乐"],
  task_audio_caption: ["Sounds", "声音"],
  task_music_caption: ["Descriptions of music", "描述音乐"],
  task_voice_conversion: ["Voice conversion", "变声"],
  task_speech_denoise: ["Noise removal", "降噪"],
  task_speech_edit: ["Speech editing", "语音编辑"],
  task_audio_understanding: ["Questions about a recording", "就录音提问"],
  task_speech_s2t: ["Written replies", "文字回答"],
  task_speech_s2s: ["Spoken replies", "语音回答"],
  task_lts: ["Songs", "歌曲"],
  task_prompted_song: ["Songs in a voice", "用某人声音唱歌"],
  task_lyric_recognition: ["Lyrics of a song", "听写歌词"],
  task_d_asr: ["Impaired speech", "构音障碍语音"],
  task_speech_ss: ["Separation of speakers", "分开说话人"],
  task_music_ss: ["Separation of music", "分开人声与伴奏"],
  task_speech_with_sound: ["Speech in a scene", "场景中的话语"],
  task_diarization: ["Who speaks when", "谁在何时说话"],
  task_few_shot: ["Few-shot examples", "少样本示例"],
  input_caption: ["Description", "描述"],
  input_transcription: ["Text", "文字"],
  input_question: ["Question", "问题"],
  input_instruction: ["What to change", "怎样改变"],
  input_lyric: ["Lyrics", "歌词"],
  input_target: ["What comes of it", "结果"],
  input_voice: ["Whose voice", "谁的声音"],
};

let column = 0;

/** The words of a key in the language of the page, with values in place of {names}; a key without words as it is. */
export function words(key, values = {}) {
  const found = WORDS[key]?.[column] ?? key.replace(/^(task|input)_/, "").replaceAll("_", " ");
  return found.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Put words on an element, or (`label`) in the name that a screen reader says; they change with the language. */
export function say(element, key, values = {}) {
  Object.assign(element.dataset, { t: key, values: JSON.stringify(values) });
  element.textContent = words(key, values);
  return element;
}

export function label(element, key, values = {}) {
  Object.assign(element.dataset, { label: key, labelValues: JSON.stringify(values) });
  element.ariaLabel = words(key, values);
  return element;
}

/** Show the whole page in "en" or "zh". */
export function translate(language) {
  column = language === "zh" ? 1 : 0;
  document.documentElement.lang = language;
  const values = (text) => JSON.parse(text ?? "{}");
  for (const each of document.querySelectorAll("[data-t]")) say(each, each.dataset.t, values(each.dataset.values));
  for (const each of document.querySelectorAll("[data-label]")) label(each, each.dataset.label, values(each.dataset.labelValues));
}

/** The language that a text is in, for its `lang`: Chinese where it has such characters. */
export function languageOf(text) {
  return /\p{Script=Han}/u.test(text) ? "zh" : "en";
}
